"""The documented clients: one per kind of reservation."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from fieldstation.fleet.blocking.client import BaseClient
from fieldstation.fleet.client.evaluation import PulseCountEvaluation, VarMaxEvaluation


class PulseCountClient(BaseClient):
    """Counts the pulses of circuits: values are ints. See BaseClient for address, name and what errors do."""

    kind = "pulsecount"
    evaluation = PulseCountEvaluation

    def reserve(
        self,
        amount: int,
        wait_for_available: bool = False,
        available_timeout: float = 60,
        kind: str = "pulsecount",
        flush_interval_seconds: float = 10,
        flush_at_bitstreams_remaining: int = 25,
    ) -> list[str] | Literal[False]:
        """Reserve `amount` more devices and return their serials when all are ready; False when control refuses.

        Raises NotEnoughDevicesError; with `wait_for_available` only after `available_timeout` seconds in the queue,
        with the reason.
        """
        args = _flush(flush_interval_seconds, flush_at_bitstreams_remaining)
        return self._reserve(amount, wait_for_available, available_timeout, kind, args)

    def reserveSpecific(
        self,
        serials: str | Iterable[str],
        kind: str = "pulsecount",
        flush_interval_seconds: float = 10,
        flush_at_bitstreams_remaining: int = 25,
    ) -> list[str] | Literal[False]:
        """Reserve these devices, all or none, and return them when all are ready; False when control refuses."""
        return self._reserve_specific(serials, kind, _flush(flush_interval_seconds, flush_at_bitstreams_remaining))


class VarMaxClient(BaseClient):
    """Measures how much circuits' outputs vary: values are floats, or `(float, [samples])` with `send_waveform`."""

    kind = "variance"
    evaluation = VarMaxEvaluation

    def __init__(
        self,
        url: str,
        client_name: str,
        logger: logging.Logger | None = None,
        log_events: bool = False,
        send_waveform: bool = False,
        *,
        token: str | None = None,
    ) -> None:
        super().__init__(url, client_name, logger, log_events, token=token)
        self.send_waveform = send_waveform

    def reserve(
        self,
        amount: int,
        wait_for_available: bool = False,
        available_timeout: float = 60,
        kind: str = "variance",
        flush_interval_seconds: float = 10,
        flush_at_bitstreams_remaining: int = 25,
        send_waveform: bool | None = None,
    ) -> list[str] | Literal[False]:
        """Reserve as PulseCountClient does; `send_waveform` defaults to what the constructor was told."""
        args = self._args(flush_interval_seconds, flush_at_bitstreams_remaining, send_waveform)
        return self._reserve(amount, wait_for_available, available_timeout, kind, args)

    def reserveSpecific(
        self,
        serials: str | Iterable[str],
        kind: str = "variance",
        flush_interval_seconds: float = 10,
        flush_at_bitstreams_remaining: int = 25,
        send_waveform: bool | None = None,
    ) -> list[str] | Literal[False]:
        """Reserve these devices, all or none; `send_waveform` defaults to what the constructor was told."""
        args = self._args(flush_interval_seconds, flush_at_bitstreams_remaining, send_waveform)
        return self._reserve_specific(serials, kind, args)

    def _args(self, interval_s: float, remaining: int, send_waveform: bool | None) -> dict[str, object]:
        chosen = self.send_waveform if send_waveform is None else send_waveform
        return {**_flush(interval_s, remaining), "send_waveform": chosen}


def _flush(interval_s: float, remaining: int) -> dict[str, object]:
    return {"flush_interval_seconds": interval_s, "flush_at_bitstreams_remaining": remaining}
