"""Which message makes the broker close the line? MQTT 3.1.1 has no other way to refuse one, and to try it again for
ever would hold up all the others.

When the line broke several times without one acknowledgement, what was on its way is sent one by one. A message after
which the line breaks at once, several times over, though it stood while it carried nothing, is the one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from fieldstation.kit.mqtt_line import Line, Sent
from fieldstation.kit.mqtt_model import MqttPublishRefusedError

CALM_S = 1.0  # so long a new line has to stand before anything is sent on it
SOON_S = 5.0  # a line that breaks later than that after a message has another reason
BARREN_BREAKS = 3
STRIKES = 3


class Suspects:
    """Messages of QoS 1 that are sent one by one. Those of QoS 2 stay with the connection's session."""

    def __init__(self, line: Line, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._queue: deque[Sent] = deque()
        self._acknowledged = 0
        self._barren = 0
        self._strikes = 0
        self._alone_since: float | None = None

    @property
    def searching(self) -> bool:
        """True until each of the suspected messages is sent or refused."""
        return bool(self._queue)

    async def clear(self) -> None:
        """Send what is suspected on a line that has just been opened; returns when nothing is any more."""
        if self._queue:
            await asyncio.sleep(CALM_S)
        while self._queue:
            message, expiry_s, future = self._queue[0]
            if not future.done():
                self._alone_since = self._clock()
                try:
                    await self._line.publish(message, expiry_s)
                except MqttPublishRefusedError as error:
                    future.set_exception(error)
                else:
                    future.set_result(None)
            self._next()

    def line_broke(self) -> bool:
        """Take note; returns whether to come back at once, because that brings the search on."""
        if self._queue:
            self._line.take_back()  # it is the head of our queue, and must not be sent by itself
            return self._judge()
        waiting = self._line.unacknowledged
        barren = bool(waiting) and self._line.acknowledged == self._acknowledged
        self._barren = self._barren + 1 if barren else 0
        self._acknowledged = self._line.acknowledged
        if self._barren >= BARREN_BREAKS and all(sent.message.qos == 1 for sent in waiting):
            self._queue.extend(self._line.take_back())
        return bool(self._queue)

    def _judge(self) -> bool:
        since, self._alone_since = self._alone_since, None
        if since is None:
            self._strikes = 0  # it broke while it carried nothing: the line itself is bad
            return False
        if self._clock() - since >= SOON_S:
            return False
        self._strikes += 1
        if self._strikes < STRIKES:
            return True
        message, _, future = self._queue[0]
        if not future.done():
            problem = "the broker closes the line whenever it is sent"
            future.set_exception(MqttPublishRefusedError(topic=message.topic, problem=problem))
        self._next()
        return True

    def _next(self) -> None:
        self._queue.popleft()
        self._alone_since = None
        self._strikes = self._barren = 0
        self._acknowledged = self._line.acknowledged
