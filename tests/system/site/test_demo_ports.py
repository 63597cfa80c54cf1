"""A port that was free when the demonstration chose it, and is another program's a moment later."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from fieldstation.site.demo import files
from fieldstation.site.demo.run import Wishes, run
from fieldstation.site.errors import RoleStartError

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("which", ["nats", pytest.param("control", marks=pytest.mark.soak)])
async def test_a_port_that_is_taken_meanwhile_is_told_and_another_one_is_chosen(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    there = asyncio.Event()
    layouts: list[files.Layout] = []
    write = files.write

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("The panel is at"):
            there.set()

    with ExitStack() as stack:

        def late(folder: Path, *, port: int) -> files.Layout:
            layouts.append(write(folder, port=port))
            if len(layouts) == 1:
                stack.enter_context(socket.create_server(("127.0.0.1", getattr(layouts[0], which))))
            return layouts[-1]

        monkeypatch.setattr(files, "write", late)
        demo = asyncio.create_task(run(Wishes(tmp_path, port=0), say, lambda report: None))
        async with asyncio.timeout(120):
            await asyncio.wait([demo, asyncio.create_task(there.wait())], return_when=asyncio.FIRST_COMPLETED)
        demo.cancel()
        await asyncio.gather(demo, return_exceptions=True)
    assert there.is_set(), said
    taken = getattr(layouts[0], which)
    told = next(text for text in said if "starting again with another one" in text)
    assert f"Port {taken} was free a moment ago" in told
    assert taken not in layouts[1].ports
    assert said[-1].startswith(f"The panel is at {layouts[1].url}")


async def test_a_role_that_cannot_start_for_another_reason_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    write = files.write

    def broken(folder: Path, *, port: int) -> files.Layout:
        layout = write(folder, port=port)
        layout.site.write_text(layout.site.read_text().replace('"fieldstation", "stream"', '"/no/such/program", "x"'))
        return layout

    monkeypatch.setattr(files, "write", broken)
    with pytest.raises(RoleStartError, match=r"program\.telescope cannot start"):
        async with asyncio.timeout(120):
            await run(Wishes(tmp_path, port=0), said.append, lambda report: None)
    assert not [text for text in said if "again" in text]
