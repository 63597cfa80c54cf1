"""KAI on NATS: codec, connection, publisher, consumers, stores."""

import contextlib
import importlib
import sys

from fieldstation.core.plugins import hidden

# nats-py imports aiohttp when it is installed, for WebSocket addresses only: a third of a second and twelve megabytes
# in every node. It is made to look absent while nats-py is imported; `connection` hands it in for ws:// addresses.
if "nats" not in sys.modules:
    with hidden("aiohttp"), contextlib.suppress(ImportError):  # without the extra, whoever needs nats-py says so
        importlib.import_module("nats.aio.transport")
