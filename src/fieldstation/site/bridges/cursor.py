"""How far a bridge is, kept in the pipeline's own key-value store: a killed bridge goes on where it was."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from fieldstation.pipeline.context import ProcessContext

log = logging.getLogger(__name__)

SAVE_EVERY_S = 0.5
PROCESS = "process"
FRAMES = "frames/cursor"  # where the bridges keep theirs
FLEET = "fleet/cursor"


class Cursor:
    """A small dictionary that survives; `save` writes it, at most twice a second unless told `now`."""

    def __init__(self, sdk: ProcessContext, key: str) -> None:
        self._config = sdk.centralized_config
        self._key = key
        self._saved_at = 0.0
        self.value: dict[str, Any] = {}

    async def load(self) -> dict[str, Any]:
        """Read what was saved last; empty at the first start, or when it is no dictionary any more."""
        text, found = await self._config.get_config(self._key, PROCESS)
        try:
            value = json.loads(text) if found and text else {}
        except ValueError:
            value = {}
        self.value = value if isinstance(value, dict) else {}
        return self.value

    async def save(self, *, now: bool = False) -> None:
        """Write it. What was forwarded after the last save is forwarded again after a crash, under the same id."""
        if not now and time.monotonic() - self._saved_at < SAVE_EVERY_S:
            return
        self._saved_at = time.monotonic()
        await self._config.set_config(self._key, json.dumps(self.value), PROCESS)
