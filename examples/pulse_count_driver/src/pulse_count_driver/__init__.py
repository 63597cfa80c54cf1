"""Boards with the pulse count firmware on serial ports that always have the same name."""
