"""Channels by which people answer. The record is the control's; a channel only shows it and brings answers."""
