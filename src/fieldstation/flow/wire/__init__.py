"""The HTTP API of the approvals."""
