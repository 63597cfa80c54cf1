"""The fleet's client for plain scripts: the documented names, each a line or two around the async client."""
