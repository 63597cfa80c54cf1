import asyncio
import os
import termios
import tty

import pytest

from fieldstation.fleet.port import Port, PortGoneError, touch

DATA = os.urandom(104_090)


@pytest.fixture
def terminal():
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave), slave
    os.close(master)
    os.close(slave)


async def drain(master, count):
    got = b""
    while len(got) < count:
        got += await asyncio.to_thread(os.read, master, 65536)
    return got


@pytest.mark.parametrize("pause_s", [0.0, 1e-6])
async def test_all_bytes_arrive_in_order_whether_paced_or_not(terminal, pause_s):
    master, path, _ = terminal
    port = Port.open(path, pause_s=pause_s)
    reading = asyncio.ensure_future(drain(master, len(DATA)))
    await port.write(DATA)
    assert await reading == DATA
    port.close()


async def test_lines_come_whole_however_they_were_cut(terminal):
    master, path, _ = terminal
    port = Port.open(path)
    for piece in (b"one\r", b"\ntw", b"o\r\n\xff\n"):
        os.write(master, piece)
        await asyncio.sleep(0)
    assert [await port.line() for _ in range(3)] == ["one", "two", "\ufffd"]
    port.close()


async def test_a_board_that_goes_away_ends_reading_and_writing_with_a_reason():
    master, slave = os.openpty()
    tty.setraw(slave)
    path = os.ttyname(slave)
    port = Port.open(path)
    told = []
    port.on_gone = lambda: told.append(True)
    os.write(master, b"last words\n")
    await asyncio.sleep(0)
    reading = asyncio.ensure_future(port.line())
    assert await reading == "last words"
    waiting = asyncio.ensure_future(port.line())
    await asyncio.sleep(0)
    os.close(slave)
    os.close(master)
    with pytest.raises(PortGoneError, match=path):
        await waiting
    with pytest.raises(PortGoneError):
        await port.write(b"x")
    with pytest.raises(PortGoneError):
        port.drain()
    assert told == [True]
    port.close()
    port.close()


def test_a_touch_leaves_the_terminal_at_1200_baud(terminal):
    _, path, slave = terminal
    touch(path)
    assert termios.tcgetattr(slave)[4] == termios.B1200
    with pytest.raises(OSError, match="No such file"):
        touch("/dev/nothing-here")
