from fieldstation.stream.probe import process_named, run_active


def proc(tmp_path, **processes):
    for pid, comm in processes.items():
        folder = tmp_path / pid.removeprefix("p")
        folder.mkdir()
        if comm is not None:
            (folder / "comm").write_text(comm + "\n")
    return tmp_path


def test_a_process_is_found_by_its_exact_name(tmp_path):
    assert process_named("hashpipe", proc(tmp_path, p1="init", p22="hashpipe"))
    assert not process_named("hash", tmp_path)


def test_processes_that_end_meanwhile_are_passed_over(tmp_path):
    assert process_named("hashpipe", proc(tmp_path, p1=None, p2="hashpipe", pself="x"))


async def test_a_file_or_nothing_may_stand_for_the_process(tmp_path):
    assert await run_active("", None) is None
    assert "does not exist" in await run_active("hashpipe", str(tmp_path / "active"))
    (tmp_path / "active").touch()
    assert await run_active("hashpipe", str(tmp_path / "active")) is None
    assert "no-such-process" in await run_active("no-such-process", None)
