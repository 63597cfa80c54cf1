"""The control server's logic: it knows devices, workers and leases, and no protocol."""

from fieldstation.fleet.control.control import Control

__all__ = ["Control"]
