"""The driver with a board that a thread plays on a pseudo-terminal."""

import os
import threading
import tty

from fieldstation.testing import serve

BITSTREAM_BYTES = 104_090


def play(master):
    """Answer every bitstream with the number of its bytes that are 1."""
    received = b""
    while True:
        try:
            received += os.read(master, 65_536)
        except OSError:
            return
        if len(received) >= BITSTREAM_BYTES:
            bitstream, received = received[:BITSTREAM_BYTES], received[BITSTREAM_BYTES:]
            text = (
                f"Received bitstream in 1 us :)\r\n, pulses: {bitstream.count(1)}\r\nWaiting for bitstream transfer\r\n"
            )
            os.write(master, text.encode())


def test_a_board_on_a_fixed_port_counts_without_being_flashed():
    master, slave = os.openpty()
    tty.setraw(slave)
    threading.Thread(target=play, args=(master,), daemon=True).start()
    with serve("pulse_count_ports", ports={"BENCH-1": os.ttyname(slave)}, look_s=0.05) as bench:
        device = bench.reserve("pulsecount", "BENCH-1")
        for number in range(3):
            bitstream = bytes([1] * number + [0] * (BITSTREAM_BYTES - number))
            device.send("evaluate", files={str(number): bitstream}, batch_id="b")
            assert device.event("results")["results"] == [[str(number), str(number)]]
    os.close(slave)
    os.close(master)
