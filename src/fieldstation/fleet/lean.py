"""Import python-socketio without what it only offers: 19 MB and a third of a second in every server process.

It imports redis, tornado and requests when they are installed: for message queues, another web server and its blocking
client. None of these is used here, so they are made to look absent meanwhile. python-socketio then goes without them
for the rest of the process, so only commands call this, whose process is nobody else's.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

from fieldstation.core.plugins import hidden

UNUSED = ("redis", "tornado", "requests")


def import_socketio() -> None:
    """Import it, unless somebody has; without the extra, whoever needs it says so."""
    if "socketio" in sys.modules:
        return
    with hidden(*UNUSED), contextlib.suppress(ImportError):
        importlib.import_module("socketio")
