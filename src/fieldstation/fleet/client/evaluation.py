"""What a device is asked to evaluate, and what comes back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BITSTREAM_BYTES = 104_090  # what the pulse count and variance firmware reads before it configures the FPGA


class EvaluationFailed(Exception):  # noqa: N818 - the documented name
    """There is no value for this evaluation on this device; the text says why.

    It stands as the `value` of a result, never raised by us: `if value is EvaluationFailed` (documented) and
    `isinstance(value, EvaluationFailed)` do not both hold, so results carry the class as value and the sentence
    as `reason`.
    """


class Evaluation:
    """Something to do on every device of `serials`: subclass it and return the request's contents from `_toJson`.

    `serials` is one serial or a collection of them, never empty. Two evaluations are equal when their ids are.
    """

    event = "evaluate"

    def __init__(self, serials: str | Iterable[str]) -> None:
        self.serials = frozenset([serials] if isinstance(serials, str) else serials)
        if not self.serials:
            raise ValueError("An evaluation needs at least one serial.")
        self.id = str(uuid.uuid4())
        self._asked = False

    def wire_id(self) -> str:
        """Return the id for the next run: `id` at first, then a fresh one, since workers drop repeats of an id."""
        if self._asked:
            return str(uuid.uuid4())
        self._asked = True
        return self.id

    def _toJson(self) -> Mapping[str, Any]:  # noqa: N802 - the documented extension point
        raise NotImplementedError

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluation) and other.id == self.id


class FileEvaluation(Evaluation):
    """Upload the file at `filepath` and wait for one value. The file is read when it is sent."""

    kind = ""

    def __init__(self, serials: str | Iterable[str], filepath: str | Path) -> None:
        super().__init__(serials)
        self.filepath = filepath

    def __repr__(self) -> str:
        return f"{type(self).__name__}({sorted(self.serials)}, {str(self.filepath)!r})"

    @staticmethod
    def value_of(raw: Any) -> Any:
        """Turn the worker's value into the one that the user sees."""
        return raw


class PulseCountEvaluation(FileEvaluation):
    """Count the pulses of one circuit for a second. The value is an int; the wire carries decimal text.

    `filepath` is a bitstream of 104,090 bytes or an `.asc` file, which `icepack` packs.
    """

    kind = "pulsecount"

    @staticmethod
    def value_of(raw: Any) -> int:
        """Return the count."""
        return int(raw)


class VarMaxEvaluation(FileEvaluation):
    """Sample one circuit's output 500 times at 10 kHz. The value is the mean absolute step in ADC counts, a float;
    with `send_waveform` it is `(float, [500 ints])`.
    """

    kind = "variance"

    @staticmethod
    def value_of(raw: Any) -> float | tuple[float, list[int]]:
        """Return the fitness, with the samples when they were asked for."""
        if isinstance(raw, list | tuple):
            fitness, samples = raw
            return float(fitness), list(samples)
        return float(raw)


@dataclass(frozen=True, slots=True)
class Result:
    """One value from one device. `value` is the class EvaluationFailed when there is none; `reason` then says why.

    It unpacks to `serial, evaluation, value`. Times are seconds: `sent_s` from the call to the sending, `took_s` from
    the sending to the arrival. `code` is a word for programs where the board knows why it cannot measure, such as
    `combinational_loop`; empty otherwise.
    """

    serial: str
    evaluation: Any
    value: Any
    reason: str = ""
    sent_s: float = 0.0
    took_s: float = 0.0
    code: str = ""

    @property
    def failed(self) -> bool:
        """True when there is no value."""
        return self.value is EvaluationFailed

    def __iter__(self) -> Iterator[Any]:
        return iter((self.serial, self.evaluation, self.value))


class BitstreamResult(Result):
    """A Result that unpacks to `serial, filepath, value`, as `evaluateBitstreams` documents."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.serial, self.evaluation.filepath, self.value))
