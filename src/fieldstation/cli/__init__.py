"""The command line: one lazy click group per capability."""
