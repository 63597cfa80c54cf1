"""Runs inside the environment of a published icefarm release: does what its README shows, prints JSON.

Arguments: control's address, client name, kind, what to do, then bitstreams.
"""

import json
import logging
import sys

from icefarm.client.drivers import PulseCountClient, VarMaxClient

url, name, kind, job, *paths = sys.argv[1:]
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
client = (PulseCountClient if kind == "pulsecount" else VarMaxClient)(url, name, logging.getLogger("published"))


def parts(result):
    """0.1.15 yields tuples, 0.1.16 objects."""
    if isinstance(result, tuple):
        return result
    return result.serial, result.evaluation.filepath, result.value


def evaluate(files):
    found = []
    for result in client.evaluateBitstreams(files):
        serial, path, value = parts(result)
        found.append([serial, str(path), value if isinstance(value, (str, int, float)) else repr(value)])
    return found


report = {"available": client.available(), "devices": client.availableDevices()}
report["reserved"] = sorted(client.reserve(2))
if job == "evaluate":
    report["results"] = evaluate(paths)
    report["extended"] = sorted(client.extendAll())
    report["ended"] = client.end([client.getSerials()[0]])
    report["second"] = client.reserve(1)
    report["again"] = evaluate(paths[:1])
elif job == "many":
    report["results"] = evaluate(paths * 20)
elif job == "reboot":
    report["not_back"] = sorted(client.reboot(client.getSerials(), timeout=30))
    report["results"] = evaluate(paths)
elif job == "hold":
    print("held", flush=True)
    sys.stdin.readline()
    report["results"] = evaluate(paths)
report["ended_all"] = sorted(client.endAll())
report["serials"] = client.getSerials()
print(json.dumps(report), flush=True)
client.stop()
# The published client keeps threads that do not end by themselves.
import os  # noqa: E402 - after the setting it depends on

os._exit(0)
