from hypothesis import given, settings
from hypothesis import strategies as st

from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.sources.ingest import Deframer
from fieldstation.testing.frames import raw


def sent(number, module_id=258):
    return module_id.to_bytes(2, "big") + raw("ph256", number)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_frames_come_out_however_the_bytes_arrive(sizes):
    whole = b"".join(sent(number) for number in range(5))
    deframer = Deframer(PRODUCTS["ph256"], "uds_ph256")
    frames, at = [], 0
    for size in [*sizes, len(whole)]:
        frames += deframer.feed(whole[at : at + size])
        at += size
    assert [(f.module_id, f.number, f.header["pkt_num"], f.file) for f in frames] == [
        (258, n, n, "uds_ph256") for n in range(5)
    ]
    assert deframer.damaged == 0


def test_garbage_costs_no_frame_that_follows():
    deframer = Deframer(PRODUCTS["ph256"], "uds_ph256")
    frames = deframer.feed(sent(0) + b"garbage" * 30 + sent(1) + sent(2)[:-50] + sent(3))
    assert [f.header["pkt_num"] for f in frames] == [0, 1, 3]
    assert {f.module_id for f in frames} == {258}
    assert deframer.damaged == 2


def test_endless_garbage_is_not_kept():
    deframer = Deframer(PRODUCTS["ph256"], "uds_ph256")
    for _ in range(50):
        deframer.feed(b"{" + b"x" * 20_000)
    assert len(deframer._buffer) < 200_000
