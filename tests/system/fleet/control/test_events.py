"""What clients hear on control's socket."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
import socketio

from fieldstation.testing import eventually

pytestmark = pytest.mark.timeout(90)


async def test_the_amount_is_told_on_connect_on_decrease_and_on_increase(api, control, worker, listeners):
    bob = await listeners(control.url, "bob")
    await eventually(lambda: bob.amounts == [4])
    await api.reserve(1, name="eve")
    await eventually(lambda: bob.amounts == [4, 3])
    await api.post("/endall", name="eve")
    await eventually(lambda: bob.amounts == [4, 3, 4])


async def test_polling_clients_hear_the_same(api, control, worker, listeners):
    bob = await listeners(control.url, "bob", transports=("polling", "websocket"))
    await eventually(lambda: bob.amounts == [4])


async def test_the_holder_hears_the_end_of_its_reservation_and_nobody_else_does(api, control, worker, listeners):
    bob, eve = await listeners(control.url, "bob"), await listeners(control.url, "eve")
    [row] = await api.reserve(1, name="bob")
    await api.post("/endall", name="bob")
    await eventually(lambda: bob.count("reservation end", row["serial"]) == 1)
    await eventually(lambda: eve.amounts[-1:] == [4])
    assert eve.count("reservation end") == 0


async def test_all_sockets_of_a_client_hear(api, control, worker, listeners):
    sockets = [await listeners(control.url, "bob") for _ in range(3)]
    await api.reserve(1, name="bob")
    await api.post("/endall", name="bob")
    for bob in sockets:
        await eventually(lambda: bob.count("reservation end") == 1)  # noqa: B023 - called before the next turn


async def test_what_happened_while_the_client_was_away_is_told_when_it_is_back(api, control, worker, listeners):
    serials = [row["serial"] for row in await api.reserve(2, name="bob")]
    await api.post("/endall", name="bob")
    bob = await listeners(control.url, "bob")
    await eventually(lambda: all(bob.count("reservation end", serial) == 1 for serial in serials))
    # It has acknowledged: the next socket hears nothing old.
    again = await listeners(control.url, "bob")
    await eventually(lambda: again.amounts)
    assert again.count("reservation end") == 0


async def test_the_end_of_an_earlier_lease_is_not_told_to_a_client_that_holds_the_device_again(
    api, control, worker, listeners
):
    # A published client forgets a device whose `reservation end` it hears; it cannot tell which lease was meant.
    first, second = (row["serial"] for row in await api.reserve(2, name="bob"))
    await api.post("/endall", name="bob")
    await eventually(lambda: control.control.amount == 4)
    assert (await api.post("/reserveserials", serials=[first], name="bob", kind="pulsecount", args={}))[0] == 200
    bob = await listeners(control.url, "bob")
    await eventually(lambda: bob.count("reservation end", second) == 1)
    await eventually(lambda: bob.amounts)
    assert bob.count("reservation end", first) == 0
    await api.post("/endall", name="bob")
    await eventually(lambda: bob.count("reservation end", first) == 1)


async def test_an_event_that_nobody_acknowledged_is_told_again(api, control, worker, listeners, monkeypatch):
    monkeypatch.setattr("fieldstation.fleet.wire.socketio_clients.REPEAT_S", 0.1)
    deaf = await listeners(control.url, "bob", answer=False)
    await api.reserve(1, name="bob")
    await api.post("/endall", name="bob")
    await eventually(lambda: deaf.count("reservation end") >= 2)


async def test_a_late_disconnect_of_an_old_socket_does_not_silence_the_new_one(api, control, worker, listeners):
    old = await listeners(control.url, "bob")
    new = await listeners(control.url, "bob")
    await old.close()
    await api.reserve(1, name="bob")
    await api.post("/endall", name="bob")
    await eventually(lambda: new.count("reservation end") == 1)


async def test_the_end_is_announced_until_the_lease_is_extended(start, workers, listeners, apis):
    control = await start(lease_s=100, ending_soon_s=99.9, ending_soon_every_s=0.05)
    await workers(control.url)
    api = apis(control.url)
    bob = await listeners(control.url, "bob")
    [row] = await api.reserve(1, name="bob")
    await eventually(lambda: bob.count("reservation ending soon", row["serial"]) >= 3)
    before = (await api.get("/api/fleet/reservations"))[1][0]["until"]
    assert await api.get("/extend", name="bob", serials=[row["serial"]]) == (200, [row["serial"]])
    assert (await api.get("/api/fleet/reservations"))[1][0]["until"] > before


async def test_a_socket_without_client_id_is_refused_with_the_reason(control):
    session = aiohttp.ClientSession()
    for auth in (None, {}, {"client_id": ""}, {"client_id": 5}, ["x"], {"client_id": "x" * 201}):
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=session)
        reasons = []
        sio.on("connect_error", reasons.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await sio.connect(control.url, auth=auth, transports=["websocket"], wait_timeout=20)
        assert "client_id is missing" in str(reasons[0])
        await sio.disconnect()
    await session.close()
    assert control.control.index.clients == {}


async def test_a_thousand_sockets_from_one_client_are_limited_and_others_still_get_in(start, listeners):
    control = await start(sockets_per_client=5)
    session = aiohttp.ClientSession()  # shared, since a client that is refused does not close its own
    flood = [socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=session) for _ in range(1000)]
    slots = asyncio.Semaphore(25)

    async def connect(sio: socketio.AsyncClient) -> bool:
        async with slots:
            try:
                await sio.connect(control.url, auth={"client_id": "flood"}, transports=["websocket"], wait_timeout=20)
            except socketio.exceptions.ConnectionError:
                await sio.disconnect()
                return False
        return True

    accepted = await asyncio.gather(*(connect(sio) for sio in flood))
    assert sum(accepted) == 5
    bob = await listeners(control.url, "bob")
    await eventually(lambda: bob.amounts == [0])
    for sio, inside in zip(flood, accepted, strict=True):
        if inside:
            await sio.disconnect()
    await session.close()
    await eventually(lambda: len(control.control.index.clients) == 1)
