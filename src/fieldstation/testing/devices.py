"""The pytest fixture `reserved_devices`: devices of a running fleet for one test, given back whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from fieldstation.fleet.blocking.drivers import PulseCountClient, VarMaxClient
from fieldstation.fleet.errors import UnknownKindError

Client = PulseCountClient | VarMaxClient

_CLIENTS: dict[str, type[Client]] = {"pulsecount": PulseCountClient, "variance": VarMaxClient}


class Reserve(Protocol):
    """What the fixture gives: call it for a client that holds devices."""

    def __call__(self, amount: int = 1, kind: str = "pulsecount", *, wait_s: float = 60.0) -> Client:
        """Stand in the queue for at most `wait_s` seconds, then raise NotEnoughDevicesError with the reason."""


@pytest.fixture
def reserved_devices(request: pytest.FixtureRequest) -> Iterator[Reserve]:
    """Gives a function that returns a blocking client which holds devices until the end of the test.

    `client = reserved_devices(2)` holds two. The fleet is the one at FIELDSTATION_CONTROL (http://127.0.0.1:8080 by
    default); FIELDSTATION_TOKEN is used when it is set. Import the fixture into your conftest.py.
    """
    url = os.environ.get("FIELDSTATION_CONTROL", "http://127.0.0.1:8080")
    with ExitStack() as stack:

        def reserve(amount: int = 1, kind: str = "pulsecount", *, wait_s: float = 60.0) -> Client:
            if kind not in _CLIENTS:
                raise UnknownKindError(kind=kind, known=", ".join(sorted(_CLIENTS)))
            name = f"pytest-{os.getpid()}-{request.node.name}"[:200]
            client: Client = _CLIENTS[kind](url, name)
            stack.enter_context(client)
            client.reserve(amount, wait_for_available=True, available_timeout=wait_s)
            return client

        yield reserve
