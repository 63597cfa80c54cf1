"""Live frames without a server: what a viewer is given, what it misses, and what the message holds."""

import json
import struct
from array import array

import pytest

from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.web.frames import Picture, Viewer, head_of, pixels_of
from fieldstation.web.histogram import BINS, KEPT, Heights


def image(number=1, module=3, kind=2, values=(0, 65535, 1, 2), quabo=None):
    made = pb.PanoImage(type=kind, module_id=module, frame_number=number, bytes_per_pixel=2, file="f.pff")
    made.shape.extend((2, 2))
    made.image_array.extend(values)
    made.header.update({"tv_sec": 7} | ({} if quabo is None else {"quabo_num": quabo}))
    return made


def test_a_message_has_its_head_and_the_pixels_as_they_are():
    message = Picture(image(), 1).message
    size = struct.unpack_from("<I", message)[0]
    head = json.loads(message[4 : 4 + size])
    assert (head["module"], head["kind"], head["type"], head["shape"], head["quabo"]) == (
        3,
        "movie",
        "u2",
        [2, 2],
        None,
    )
    assert head["header"] == {"tv_sec": 7.0}
    assert array("H", message[4 + size :]).tolist() == [0, 65535, 1, 2]


def test_pulse_heights_are_signed():
    made = image(kind=1, quabo=2)
    assert pixels_of(made).tolist() == [0, -1, 1, 2]
    assert (head_of(made)["type"], head_of(made)["quabo"]) == ("i2", 2)


def test_a_message_is_made_once_for_all():
    picture = Picture(image(), 1)
    assert picture.message is picture.message


async def test_a_slow_viewer_gets_the_newest_of_each_place_and_every_frame_is_counted():
    viewer = Viewer()
    for number in range(10):
        viewer.offer(Picture(image(number), number))
        viewer.offer(Picture(image(number, module=4), number))
    taken = await viewer.take()
    numbers = [json.loads(m[4 : 4 + struct.unpack_from("<I", m)[0]])["number"] for m in taken]
    assert numbers == [9, 9]
    assert (viewer.sent, viewer.dropped, viewer.waiting) == (2, 18, 0)
    viewer.offer(Picture(image(10), 10))
    assert viewer.sent + viewer.dropped + viewer.waiting == 21


@pytest.mark.parametrize("values", [[5], [-3, 4], list(range(-100, 1000, 7)), [7] * 10_000])
def test_a_histogram_counts_what_is_kept(values):
    heights = Heights()
    for value in values:
        heights.add(value)
    found = heights.histogram()
    assert sum(found["counts"]) == min(len(values), KEPT)
    assert len(found["counts"]) <= BINS
    assert (found["low"], found["high"], found["total"]) == (min(values), max(values) + 1, len(values))


def test_an_empty_histogram_is_empty():
    assert Heights().histogram()["counts"] == []
