"""What the worker does for the well-being of one device: which rungs it has tried, and whether it is out of service."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fieldstation.fleet.ladder import Budgets, Rung, Tried, next_rung
from fieldstation.fleet.model import Health, OutOfService
from fieldstation.fleet.power import Place, PowerHook

REMEMBERED = 1000  # rungs; far more than any budget


@dataclass(frozen=True, slots=True)
class CareSettings:
    """How a worker cares for its devices. `check_s` 0 switches health checks off; `back_s` is for a board to come back
    after its power was cut."""

    budgets: Budgets = field(default_factory=Budgets)
    check_s: float = 600.0
    power: PowerHook | None = None
    back_s: float = 15.0


class Care:
    """The ladder of one serial. It outlives the device, which may be unplugged and come back.

    `say(step, detail)` enters a line into the device's history; `keep(out)` puts on disk whether it is out of service.
    """

    def __init__(
        self,
        serial: str = "",
        settings: CareSettings | None = None,
        say: Callable[[str, str], None] = lambda step, detail: None,
        keep: Callable[[OutOfService | None], None] = lambda out: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serial = serial
        self.settings = settings or CareSettings()
        self.note = say
        self._keep = keep
        self.out: OutOfService | None = None
        self.place: Place | None = None  # where it was last plugged in
        self.sick = False  # it was broken and is not ready again
        self._tried: deque[Tried] = deque(maxlen=REMEMBERED)
        self._clock = clock

    def next(self, possible: set[Rung]) -> Rung:
        """Return what to do next; POWER_CYCLE is added to `possible` where the hub's command can be run."""
        power = self.settings.power
        if power is not None and power.can(self.serial, self.place):
            possible = possible | {Rung.POWER_CYCLE}
        return next_rung(self._tried, self.settings.budgets, self._clock(), possible)

    def try_rung(self, rung: Rung, detail: str) -> None:
        """Note that a rung is used now."""
        self._tried.append(Tried(rung, self._clock()))
        self.note(rung.value, detail)

    def broken(self, reason: str) -> None:
        """Note that the device failed."""
        self.sick = True
        self.note("broken", reason)

    def ready(self) -> None:
        """Note that a device that was broken is ready again."""
        if self.sick:
            self.sick = False
            self.note("recovered", "")

    def quarantine(self, reason: str) -> None:
        """Take the device out until an operator puts it back."""
        self.take_out(OutOfService(Health.QUARANTINED, reason))
        self.note(Rung.QUARANTINE.value, reason)

    def take_out(self, out: OutOfService) -> None:
        """Leave the device alone from now on, also after a restart."""
        self.out = out
        self._keep(out)

    def put_back(self) -> None:
        """An operator trusts the device again: the ladder begins at its foot."""
        self.out = None
        self._keep(None)
        self.sick = False
        self._tried.clear()
