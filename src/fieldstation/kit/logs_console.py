"""`logger`: a Loguru instance for the console, with colours, and alerts to Slack for errors when that is set up.

It is made when it is first used. Only Loguru's own default output is replaced; what a program added itself stays.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from loguru import logger as _loguru

from fieldstation.kit.environment import setting

if TYPE_CHECKING:
    from loguru import Logger

FORMAT = (
    "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> | <level>{level: <8}</level> | "
    "<cyan>{module}</cyan>:<cyan>{function}</cyan>:<cyan>{line}</cyan> - <level>{message}</level>"
)


def _stderr(message: str) -> None:
    # Looked up for each line, so that a program (or a test) that replaces sys.stderr later is heard.
    sys.stderr.write(message)


def _configured() -> Logger:
    with contextlib.suppress(ValueError):  # a program has removed it before us
        _loguru.remove(0)
    colours = sys.stderr is not None and sys.stderr.isatty()
    _loguru.add(_stderr, format=FORMAT, level=setting("FIELDSTATION_LOG_LEVEL", "INFO").upper(), colorize=colours)
    if setting("SLACK_BOT_TOKEN") and setting("SLACK_LOGGING_CHANNEL"):
        from fieldstation.kit.slack_alerts import get_slack_sink

        sink = get_slack_sink()
        assert sink is not None
        _loguru.add(sink, level="ERROR", format="{level} {module}:{function}:{line} - {message}")
    return _loguru


logger = _configured()
