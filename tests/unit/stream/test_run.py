import os
from itertools import chain

import pytest

from fieldstation.stream.errors import DataDirError
from fieldstation.stream.sources.pff import check_data_dir
from fieldstation.stream.sources.run import RunFollower
from fieldstation.testing.frames import name, raw


def put(folder, product, numbers, *, module_id=1, seqno=0, start="2024-07-25T04:34:46Z"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name(product, module_id, seqno, start)
    with path.open("ab") as file:
        file.writelines(raw(product, number) for number in numbers)
    return path


def found(follower, every=True):
    follower.rescan()
    frames = []
    while batch := follower.read(every):
        frames += chain(*batch)
        if not every and not follower.behind:
            break
    return [
        (f.module_id, f.product, f.header.get("pkt_num", f.header.get("quabo_0", {}).get("pkt_num"))) for f in frames
    ]


@pytest.fixture
def run(tmp_path):
    return tmp_path / "module_1" / "obs_Lick.start_2024-07-25T04:34:06Z.runtype_sci-data.pffd"


def test_every_product_of_every_module_is_served(tmp_path):
    for module_id in range(8):
        for product in ("img8", "img16", "ph256", "ph1024"):
            put(tmp_path / f"module_{module_id}" / "obs_x", product, [3], module_id=module_id)
    frames = found(RunFollower(tmp_path), every=False)
    assert len(frames) == len(set(frames)) == 32


def test_a_busy_product_takes_only_its_turn(tmp_path):
    put(tmp_path / "module_1" / "obs_x", "ph256", range(1000))
    put(tmp_path / "module_2" / "obs_x", "ph256", range(5), module_id=2)
    follower = RunFollower(tmp_path)
    follower.rescan()
    first = list(chain(*follower.read(every=True)))
    assert sum(f.module_id == 2 for f in first) == 5
    assert sum(f.module_id == 1 for f in first) == 64


def test_a_roll_over_loses_and_repeats_nothing(tmp_path, run):
    put(run, "ph256", range(3))
    follower = RunFollower(tmp_path)
    seen = found(follower)
    put(run, "ph256", [3])
    put(run, "ph256", [], seqno=1, start="2024-07-25T05:00:00Z")
    seen += found(follower)
    put(run, "ph256", [4, 5], seqno=1, start="2024-07-25T05:00:00Z")
    put(run, "ph256", [6], seqno=2, start="2024-07-25T06:00:00Z")
    seen += found(follower)
    assert [number for _, _, number in seen] == list(range(7))


def test_a_clock_that_jumped_back_does_not_hide_the_next_file(tmp_path, run):
    put(run, "ph256", [0])
    follower = RunFollower(tmp_path)
    seen = found(follower)
    put(run, "ph256", [1], seqno=1, start="2001-01-01T00:00:00Z")
    seen += found(follower)
    assert [number for _, _, number in seen] == [0, 1]


def test_unused_empty_files_hide_nothing(tmp_path, run):
    for product in ("img8", "img16", "ph256", "ph1024"):
        put(run, product, [])
    put(run, "ph256", [])
    put(run, "ph256", [5], seqno=1, start="2024-07-25T05:00:00Z")
    assert found(RunFollower(tmp_path), every=False) == [(1, "ph256", 5)]


def test_the_newest_run_is_the_one_with_the_latest_time_in_its_name(tmp_path):
    old = tmp_path / "module_1" / "obs_Lick.start_2024-07-25T04:34:06Z.runtype_sci-data.pffd"
    new = tmp_path / "module_1" / "obs_Lick.start_2024-07-26T04:34:06Z.runtype_sci-data.pffd"
    put(new, "ph256", [2])
    put(old, "ph256", [1])
    os.utime(new, (1, 1))  # touching the old run must not make it win
    assert found(RunFollower(tmp_path)) == [(1, "ph256", 2)]


def test_a_new_run_is_followed_from_its_first_frame(tmp_path, run):
    put(run, "ph256", [0, 1])
    follower = RunFollower(tmp_path)
    found(follower)
    put(run.with_name("obs_Lick.start_2025-01-01T00:00:00Z.runtype_sci-data.pffd"), "ph256", [7, 8])
    assert [number for _, _, number in found(follower)] == [7, 8]


def test_files_of_all_modules_in_one_folder_are_told_apart(tmp_path):
    folder = tmp_path / "obs_Lick.start_2024-07-25T04:34:06Z.runtype_sci-data.pffd"
    put(folder, "ph256", [1], module_id=1)
    put(folder, "ph256", [3], module_id=3)
    (folder / "hk.pff").write_bytes(b"{}")
    expected = [(1, "ph256", 1), (3, "ph256", 3)]
    assert sorted(found(RunFollower(tmp_path))) == expected  # the head node's data directory
    assert sorted(found(RunFollower(folder))) == expected  # or the run itself


def test_a_whitelist_of_modules_restricts_what_is_read(tmp_path):
    for module_id in (1, 2, 3):
        put(tmp_path / f"module_{module_id}" / "obs_x", "ph256", [0], module_id=module_id)
    assert {m for m, _, _ in found(RunFollower(tmp_path, frozenset({1, 3})))} == {1, 3}


@pytest.mark.parametrize("level", ["file", "run", "module"])
def test_symbolic_links_out_of_the_data_directory_are_refused(tmp_path, level):
    data, outside = tmp_path / "data", tmp_path / "outside"
    real = put(outside / "obs_x", "ph256", [1])
    module = data / "module_1"
    if level == "file":
        (module / "obs_x").mkdir(parents=True)
        (module / "obs_x" / real.name).symlink_to(real)
    elif level == "run":
        module.mkdir(parents=True)
        (module / "obs_x").symlink_to(outside / "obs_x")
    else:
        data.mkdir()
        module.symlink_to(outside)
    follower = RunFollower(data)
    assert found(follower) == []
    assert len(follower.refused) == 1


def test_a_link_inside_the_data_directory_and_a_linked_data_directory_are_fine(tmp_path):
    put(tmp_path / "data" / "disk2" / "obs_x", "ph256", [1])
    (tmp_path / "data" / "module_1").symlink_to(tmp_path / "data" / "disk2")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert found(RunFollower(tmp_path / "link")) == [(1, "ph256", 1)]


def test_a_vanished_data_directory_is_a_problem_that_passes(tmp_path):
    data = tmp_path / "data"
    put(data / "module_1" / "obs_x", "ph256", [0, 1])
    follower = RunFollower(data)
    assert len(found(follower)) == 2
    data.rename(tmp_path / "gone")
    assert found(follower) == []
    assert "cannot be read" in follower.problem
    (tmp_path / "gone").rename(data)
    put(data / "module_1" / "obs_x", "ph256", [2])
    assert [number for _, _, number in found(follower)] == [2]  # nothing is repeated
    assert follower.problem is None


def test_a_data_directory_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fieldstation.stream.sources.pff.os.scandir", forbidden)  # root may read anything
    with pytest.raises(DataDirError, match="cannot be read: Permission denied"):
        check_data_dir(str(tmp_path))
