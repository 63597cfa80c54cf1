"""Boards that exist only as a process: pseudo-terminals that speak the firmware's side, and the boot loader's disk."""

from fieldstation.fleet.sim.answers import answer, samples

__all__ = ["answer", "samples"]
