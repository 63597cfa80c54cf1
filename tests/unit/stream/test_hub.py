import asyncio

import pytest

from fieldstation.stream.errors import FrameFormatError, StreamEndedError
from fieldstation.stream.hub import Every, Hub, Newest
from fieldstation.stream.model import Wanted
from fieldstation.testing.frames import frame

ALL = Wanted(movie=True, pulse_height=True, modules=frozenset(), interval_s=0.0)


@pytest.fixture
def hub():
    encoded = []

    def encode(one, received_ns):
        encoded.append(one)
        return b"%d" % one.number

    hub = Hub(encode, lambda series, received_ns: [encode(one, received_ns) for one in series])
    hub.encoded = encoded
    return hub


def taken(subscription):
    return [int(shared.payload) for shared in subscription.take()]


def test_each_frame_is_encoded_once_whatever_the_number_of_clients(hub):
    clients = [Every(ALL, "", 100) for _ in range(100)]
    for client in clients:
        hub.add(client)
    hub.publish([frame("ph256", number) for number in range(3)])
    for client in clients:
        assert taken(client) == [0, 1, 2]
    assert len(hub.encoded) == 3


def test_the_frame_after_the_one_being_sent_may_be_encoded_ahead(hub):
    client = Every(ALL, "", 100)
    hub.add(client)
    hub.publish([frame("ph256", number) for number in range(2)])
    taking = client.take()
    next(taking)
    ahead = client.following()
    ahead.encode()
    assert ahead.encoded
    assert int(next(taking).payload) == 1
    assert len(hub.encoded) == 1
    assert client.following() is None


def test_a_frame_that_cannot_be_encoded_fails_when_it_is_sent_and_not_before():
    def encode(one, received_ns):
        raise FrameFormatError(where="the header", problem="too deep")

    hub = Hub(encode, lambda series, received_ns: [])
    client = Every(ALL, "", 100)
    hub.add(client)
    hub.publish([frame("ph256", 1)])
    client.following().encode()
    with pytest.raises(FrameFormatError):
        taken(client)


def test_a_frame_that_nobody_takes_is_never_encoded(hub):
    hub.publish([frame("img16", number) for number in range(5)])
    assert hub.encoded == []


def test_the_newest_frame_of_every_module_product_and_quabo_is_kept(hub):
    client = Newest(ALL, "")
    hub.add(client)
    for number in range(8):
        for module_id in (1, 2):
            hub.publish([frame(product, number, module_id) for product in ("img8", "img16", "ph256", "ph1024")])
    numbers = taken(client)
    # Two modules: the newest of three whole-camera products, and of each of the four quabos.
    assert sorted(numbers) == sorted([7] * 3 * 2 + [4, 5, 6, 7] * 2)
    assert taken(client) == []


@pytest.mark.parametrize("client", [Newest(ALL, ""), Every(ALL, "", 5)])
def test_offered_is_sent_plus_dropped_plus_waiting(hub, client):
    hub.add(client)
    for number in range(20):
        hub.publish([frame("img16", number)])
        if number % 7 == 0:
            taken(client)
    waiting = client.counters.offered - client.counters.sent - client.counters.dropped
    assert client.counters.offered == 20
    assert client.counters.dropped > 0
    assert waiting == len(taken(client))


def test_a_new_client_gets_what_is_known_at_once(hub):
    hub.publish([frame("img16", 4)])
    client = Newest(ALL, "")
    hub.add(client)
    assert taken(client) == [4]


def test_class_and_module_are_filtered(hub):
    movies = Newest(Wanted(True, False, frozenset({2}), 0.0), "")
    hub.add(movies)
    hub.publish([frame("img16", 1, 1), frame("img16", 2, 2), frame("ph256", 3, 2)])
    assert taken(movies) == [2]


def test_every_client_knows_how_many_frames_are_missing_before_which(hub):
    client = Every(ALL, "", 2)
    hub.add(client)
    hub.publish([frame("img16", number) for number in range(5)])
    assert [(int(s.payload), client.gap_before(s)) for s in client.take()] == [(0, 0), (1, 0)]
    hub.publish([frame("img16", 5)])
    assert [(int(s.payload), client.gap_before(s)) for s in client.take()] == [(5, 3)]
    assert client.counters.dropped == 3


async def test_a_client_waits_out_its_interval_and_then_gets_the_newest(hub):
    client = Newest(Wanted(True, True, frozenset(), 0.02), "")
    hub.add(client)
    hub.publish([frame("img16", 1)])
    loop = asyncio.get_running_loop()
    await client.ready()
    assert taken(client) == [1]
    began = loop.time()
    hub.publish([frame("img16", 2)])
    hub.publish([frame("img16", 3)])
    await client.ready()
    assert loop.time() - began >= 0.015
    assert taken(client) == [3]


@pytest.mark.parametrize("client", [Newest(ALL, ""), Every(ALL, "", 5)])
async def test_a_waiting_client_learns_that_its_stream_ended(hub, client):
    hub.add(client)
    waiting = asyncio.ensure_future(client.ready())
    await asyncio.sleep(0)
    client.end(StreamEndedError())
    with pytest.raises(StreamEndedError):
        await waiting


def test_the_source_is_told_when_somebody_needs_every_frame(hub):
    told = []
    hub.on_demand = lambda: told.append((len(hub.subscriptions), hub.want_every))
    newest, every = Newest(ALL, ""), Every(ALL, "", 5)
    hub.add(newest)
    hub.add(every)
    hub.remove(every)
    assert told == [(1, False), (2, True), (1, False)]
