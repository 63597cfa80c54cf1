"""The process of one procedure or backend: `python -m fieldstation.station.child FD`, told what to run on stdin.

Not a fork (a forked child inherits locks and database connections in an unknown state) and not multiprocessing's
spawn either, which costs a tracker process more and imports the parent's main module, command line and all.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
from typing import Any

from fieldstation.core.children import die_with_parent
from fieldstation.station import heartbeat
from fieldstation.station.memory import give_back

PARAMETERS = {"procedure": 2, "backend": 3}
_MAIN = "__main__"
END_NOW = signal.SIGUSR1  # tells a backend to end without draining


def reference(target: Any) -> str:
    """Return `module:name` of a function or class; ValueError when it has no such name (a lambda, a closure)."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", "")
    if not module or not name or "<" in name:
        raise ValueError(f"{target!r} cannot run in a process of its own: it must be defined at the top of a module")
    return f"{module}:{name}"


def resolve(text: str) -> Any:
    """Return what `module:name` names."""
    module, _, name = text.partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target


def check_signature(target: Any, name: str, variant: str) -> None:
    """Raise ValueError unless `target` takes what a procedure or a backend is given."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p for p in inspect.signature(target).parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(parameters) != PARAMETERS[variant]:
        raise ValueError(
            f"{name} is no {variant}: a procedure is run(config, logger), "
            "a backend is run(config, logger, teardown_indicator)"
        )


def _listen(line: socket.socket, teardown: threading.Event, farewell: signal.Signals, grace_s: float) -> None:
    with contextlib.suppress(OSError):
        while data := line.recv(64):
            if b"teardown" in data:
                teardown.set()
    # The supervisor is gone, and nobody will restart or drain us: end as if it had asked, and do not outlive that.
    os.kill(os.getpid(), farewell)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Read the order, run it, and end with 0 when it returns."""
    line = socket.socket(fileno=int(sys.argv[1]))
    order = json.load(sys.stdin)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor tells us in order
    farewell = signal.SIGTERM
    if order["variant"] == "backend":
        # A SIGTERM to the whole group (systemd, `timeout`) must not end who has to drain the queue first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        farewell = END_NOW
    die_with_parent(farewell)  # the control line's end tells the same wherever Python runs
    if os.getppid() != order["parent"]:
        sys.exit(0)
    sys.path[:] = order["path"]
    if order["main"]:
        # What is defined in the script that was started is found there again, without running its `if __name__` part.
        module = type(sys)(_MAIN)
        module.__dict__.update(runpy.run_path(order["main"], run_name="__mp_main__"))
        sys.modules[_MAIN] = module
    teardown = threading.Event()
    threading.Thread(target=_listen, args=(line, teardown, farewell, order["grace_s"]), daemon=True).start()
    heartbeat.attach(line)
    heartbeat.report({"state": "starting"})
    config = resolve(order["config_class"]).model_validate_json(order["config"])
    from fieldstation.station.agent import made_under
    from fieldstation.station.logger import Logger

    made_under(config.general.config_revision)

    logger = Logger(config, order["name"])
    try:
        entrypoint = resolve(order["entrypoint"])
        check_signature(entrypoint, order["name"], order["variant"])
        give_back()
        heartbeat.report({"state": "running"})
        entrypoint(config, logger, teardown) if order["variant"] == "backend" else entrypoint(config, logger)
    except Exception as error:
        # Told before the end is: to log and to end takes its time, in which a config on trial would pass.
        heartbeat.report({"state": "failed"})
        logger.exception(error, label=f"{order['name']} failed")
        logger.teardown()
        sys.exit(1)
    logger.teardown()


if __name__ == "__main__":
    main()
