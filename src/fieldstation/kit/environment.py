"""What the surroundings tell: settings, also from the nearest `.env` (read once, at first use), and who runs us."""

from __future__ import annotations

import getpass
import os
import threading
from pathlib import Path

_lock = threading.Lock()
_loaded: set[Path] = set()


def load_env(folder: Path | None = None) -> Path | None:
    """Load the nearest `.env` from `folder` (the working folder) upwards; returns its path, None when there is none.

    Variables that are set already keep their value. Each file is read once per process.
    """
    start = (folder or Path.cwd()).resolve()
    for candidate in (start, *start.parents):
        path = candidate / ".env"
        if path.is_file():
            with _lock:
                if path not in _loaded:
                    from dotenv import load_dotenv

                    load_dotenv(path, override=False)
                    _loaded.add(path)
            return path
    return None


def setting(name: str, default: str = "") -> str:
    """Return an environment variable after `.env` was looked at; an empty one counts as not set."""
    load_env()
    return os.environ.get(name) or default


def user_name() -> str:
    """Return who runs this; the number where it has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
