"""What the Socket.IO library logs: in our form, and one line for what a stranger sent, not a traceback each time."""

from __future__ import annotations

import logging


class _OneLine(logging.Filter):
    """The library logs whatever happens while it reads a request as an error with its whole traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(error := record.exc_info[1], ValueError | KeyError | TypeError):
            record.msg, record.args = f"a request that is no Socket.IO was refused: {type(error).__name__}", ()
            record.exc_info, record.exc_text = None, None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def socket_log() -> logging.Logger:
    """Return the logger for `engineio_logger=`; a library without one writes past ours to stderr."""
    log = logging.getLogger("engineio.server")
    if not any(isinstance(known, _OneLine) for known in log.filters):
        log.addFilter(_OneLine())
        log.setLevel(logging.WARNING)
    return log
