"""How often somebody may be wrong at the login: pure counting, the clock is an argument."""

from __future__ import annotations

from collections import OrderedDict

LONGEST_S = 300.0
FORGET_S = 900.0  # without another try an address starts afresh
MANY = 10_000  # addresses that are remembered; the oldest is forgotten first


class Attempts:
    """Wrong tries per address. After `free` of them each further one doubles the wait, up to five minutes.

    While an address waits nothing is looked at, right or wrong: who guesses cannot tell a hit from a miss.
    """

    def __init__(self, free: int) -> None:
        self.free = free
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count, and when the last one was

    def wait_s(self, address: str, now: float) -> float:
        """Return how long `address` must wait from `now` (monotonic seconds); 0 when it may try."""
        count, last = self._wrong.get(address, (0, now))
        if count < self.free or now - last > FORGET_S:
            return 0.0
        return max(0.0, last + min(LONGEST_S, 2.0 ** (count - self.free + 1)) - now)

    def failed(self, address: str, now: float) -> None:
        """Count a wrong try."""
        count, last = self._wrong.pop(address, (0, now))
        self._wrong[address] = (1 if now - last > FORGET_S else count + 1, now)
        while len(self._wrong) > MANY:
            self._wrong.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget what went wrong before."""
        self._wrong.pop(address, None)
