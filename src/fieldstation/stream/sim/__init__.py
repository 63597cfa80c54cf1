"""Simulated instruments; chosen by entry point name, never imported by product code."""
