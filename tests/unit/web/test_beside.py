"""What the panel reads may fail; control must not."""

import asyncio

from fieldstation.web.beside import Beside


class Failing:
    name = "camera"

    def __init__(self, failures):
        self.failures = failures
        self.runs = 0
        self.stopped = False

    async def start(self):
        pass

    async def run(self):
        self.runs += 1
        if self.runs <= self.failures:
            raise OverflowError("a pixel of 17 bits")

    async def stop(self):
        self.stopped = True

    def health(self):
        return {"ok": self.runs > self.failures}


async def test_a_source_that_fails_is_run_again_and_ends_nobody(caplog, monkeypatch):
    async def at_once(seconds):
        pass

    monkeypatch.setattr(asyncio, "sleep", at_once)
    service = Failing(3)
    beside = Beside(service)
    await beside.start()
    await beside.run()
    assert service.runs == 4
    assert caplog.text.count("what the panel shows of camera failed") == 3
    assert beside.health() == {"ok": True}
    await beside.stop()
    assert service.stopped
