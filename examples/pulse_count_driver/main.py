#!/usr/bin/env python3
"""Count the pulses of circuits on any boards of a fleet: `main.py URL FILE... [--boards N]`.

Prints one line for each circuit and board. URL is the control server's address.
"""

import argparse
import atexit
import getpass
import logging

from fieldstation.fleet import PulseCountClient, PulseCountEvaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--boards", type=int, default=1)
    arguments = parser.parse_args()

    client = PulseCountClient(
        arguments.url, f"pulse count example of {getpass.getuser()}", logging.getLogger("example")
    )
    atexit.register(client.endAll)
    # Waits in the queue; each board is flashed with the pulse count firmware before this returns.
    serials = client.reserve(arguments.boards, wait_for_available=True, available_timeout=60)

    # Every circuit on every board; results come in whatever order they are ready.
    for serial, path, pulses in client.evaluateBitstreams(arguments.files, serials=serials):
        print(f"{serial} {path} {pulses}")

    # One circuit per board, all in one go: faster than one call after another.
    commands = [PulseCountEvaluation({serial}, file) for serial, file in zip(serials, arguments.files, strict=False)]
    for serial, evaluation, pulses in client.evaluateEvaluations(commands):
        print(f"{serial} {evaluation.filepath} {pulses} again")

    client.stop()


if __name__ == "__main__":
    main()
