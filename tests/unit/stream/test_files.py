import os

import numpy as np
import pytest

from fieldstation.stream.convert import ConversionError, convert, load
from fieldstation.stream.errors import FrameFormatError, FrameNumberError
from fieldstation.stream.files import PffFile, inspect, pff_files
from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.pff import format_frame
from fieldstation.stream.record import PffRecorder
from fieldstation.stream.writer import PffWriter
from fieldstation.testing.frames import frame, header, name, pixels, raw, recorded

# Present where the data were handed to us; what the project ships is generated.
real_files = sorted(folder.glob("start_*.pff")) if (folder := recorded()) else []


def write(path, product, numbers):
    path.write_bytes(b"".join(raw(product, number) for number in numbers))
    return path


@pytest.mark.parametrize("product", PRODUCTS)
def test_frames_are_found_by_number(tmp_path, product):
    with PffFile(write(tmp_path / name(product, 5), product, range(20))) as file:
        assert len(file) == 20
        for number in (19, 0, 7):
            assert file[number] == frame(product, number, 5, file.path.name)
        assert file.images.shape == (20, *PRODUCTS[product].shape)
        assert (file.images[7] == file[7].image).all()
        assert [f.number for f in file] == list(range(20))


@pytest.mark.parametrize("number", [-1, 3, 10**9])
def test_a_number_that_is_not_there_is_refused(tmp_path, number):
    with (
        PffFile(write(tmp_path / name("img8"), "img8", range(3))) as file,
        pytest.raises(FrameNumberError, match="3 complete"),
    ):
        file[number]


def test_a_truncated_tail_and_an_empty_file(tmp_path):
    path = write(tmp_path / name("img16"), "img16", range(3))
    os.truncate(path, path.stat().st_size - 1)
    with PffFile(path) as file:
        assert len(file) == 2
    empty = tmp_path / name("img8")
    empty.touch()
    with PffFile(empty) as file:
        assert len(file) == 0
        assert list(file) == []


def test_a_damaged_file_is_indexed_as_a_live_reader_counts(tmp_path):
    path = tmp_path / name("ph256")
    path.write_bytes(raw("ph256", 0) + b"##" + raw("ph256", 1) + b"X" * 700 + raw("ph256", 3))
    with PffFile(path) as file:
        live = list(file)
        assert [(f.number, f.header["pkt_num"]) for f in live] == [(0, 0), (1, 1), (3, 3)]
        assert [file[f.number] for f in live] == live
        with pytest.raises(FrameFormatError, match="number 2"):
            file[2]
        with pytest.raises(FrameFormatError, match="not all of one size"):
            _ = file.images
    [report] = inspect(path)
    assert (report["frames"], len(report["damaged"]), report["tail_bytes"]) == (3, 2, 0)


@pytest.mark.parametrize("path", real_files, ids=lambda p: p.name)
def test_real_files_equal_an_independent_decode(path):
    """600 frames of an observing night, decoded here with nothing but NumPy and the documented sizes."""
    product = next(p for p in PRODUCTS.values() if f".dp_{p.name}." in path.name)
    size = {"img16": 2540, "ph256": 636}[product.name]
    data = np.fromfile(path, np.uint8).reshape(-1, size)
    expected = data[:, -product.image_bytes :].copy().view(product.dtype).reshape(-1, *product.shape)
    with PffFile(path) as file:
        assert len(file) == 600
        assert (file.images == expected).all()
        for number, one in enumerate(file):
            assert (one.image == expected[number]).all()
            assert one.number == number
            # Writing it again gives the very bytes, header included.
            assert format_frame(one.header, one.pixels, product.one_header) == data[number].tobytes()


def folder_of_all(tmp_path):
    folder = tmp_path / "obs_x"
    for module_id in (1, 3):
        with PffWriter(folder, module_id) as writer:
            for product, count in (("img16", 10), ("ph256", 300 if module_id == 1 else 3)):  # more than one chunk
                for number in range(count):
                    writer.write(PRODUCTS[product], header(product, number), pixels(product, number))
    return folder


@pytest.mark.parametrize("suffix", [".zarr", ".h5", ".npz"])
def test_conversion_round_trips(tmp_path, suffix):
    folder = folder_of_all(tmp_path)
    odd = folder / name("img8", 7)
    odd.write_bytes(b'{"text": "\xc3\xa9", "list": [1, null]}\n\n*' + pixels("img8", 1) + raw("img8", 2))
    target = tmp_path / f"out{suffix}"
    assert convert(folder, target, quiet=True) == (325, 0)
    back = {}
    for one in load(target):
        back.setdefault((one.module_id, one.product), []).append(one)
    for path, found in pff_files(folder):
        with PffFile(path) as file:
            assert list(file) == back.get((found.module_id, found.product.name), [])


@pytest.mark.parametrize("path", real_files[:1], ids=lambda p: p.name)
def test_a_real_file_round_trips(path, tmp_path):
    convert(path, tmp_path / "out.h5", quiet=True)
    with PffFile(path) as file:
        assert list(load(tmp_path / "out.h5")) == list(file)


def test_conversion_refuses_what_it_cannot_do(tmp_path):
    source = write(tmp_path / name("img8"), "img8", range(2))
    taken = tmp_path / "taken.npz"
    taken.touch()
    for target, words in [
        (taken, "exists already"),
        (tmp_path / "x.parquet", "suffix"),
        (tmp_path / "no" / "x.npz", "does not exist"),
    ]:
        with pytest.raises(ConversionError, match=words):
            convert(source, target, quiet=True)
    empty = tmp_path / name("img16")
    empty.touch()
    with pytest.raises(ConversionError, match="no frame"):
        convert(empty, tmp_path / "y.npz", quiet=True)
    assert taken.stat().st_size == 0


def test_a_recording_rolls_over_where_its_source_did(tmp_path):
    recorder = PffRecorder(tmp_path)
    for number in range(6):
        recorder.add(frame("img16", number % 3, 4, f"file{number // 3}.pff"))
    recorder.close()
    files = [(path, found) for path, found in pff_files(tmp_path) if path.stat().st_size]
    assert [found.seqno for _, found in files] == [0, 1]
    assert [f.header for path, _ in files for f in PffFile(path)] == [header("img16", n % 3) for n in range(6)]


def test_a_run_begins_with_all_four_files_and_rolls_over_past_its_limit(tmp_path):
    times = iter(f"2024-01-01T00:00:{second:02}Z" for second in range(60))
    with PffWriter(tmp_path, 1, max_bytes=2000, clock=lambda: next(times)) as writer:
        assert len(writer.paths) == 4
        for number in range(3):
            writer.write(PRODUCTS["ph256"], header("ph256", number), pixels("ph256", number))
            writer.write(PRODUCTS["img16"], header("img16", number), pixels("img16", number))
    names = [p.name for p in writer.paths if p.stat().st_size and "img16" in p.name]
    assert [n.rpartition("seqno_")[2] for n in names] == ["0.pff", "1.pff", "2.pff"]
    assert len({n.partition(".dp_")[0] for n in names}) == 3
