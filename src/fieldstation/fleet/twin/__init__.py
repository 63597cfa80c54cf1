"""A digital twin of the board: decode a bitstream, run its logic, count what the real board would count."""
