"""Runs in the published server's environment: `published_server.py PORT FOLDER`, sockets in FOLDER, loopback only."""

import asyncio
import json
import os
import sys
from importlib.resources import files

port, folder = sys.argv[1:3]
os.chdir(folder)
import grpc  # noqa: E402 - after the setting it depends on
from panoseti_grpc.daq_data import server as published  # noqa: E402 - after the setting it depends on

config = json.loads((files("panoseti_grpc.daq_data") / "config" / "daq_data_server_config.json").read_text())
config["unix_domain_socket"] = f"unix://{folder}/daq.sock"
config["acquisition_methods"]["uds"]["socket_path_template"] = f"{folder}/dp_{{dp_name}}.sock"
make = grpc.aio.server


def on_loopback(*arguments, **options):
    server = make(*arguments, **options)
    add, start = server.add_insecure_port, server.start

    async def start_and_tell():
        await start()
        print(f"ready http://127.0.0.1:{port}", flush=True)

    server.add_insecure_port = lambda address: add(address.replace("[::]:50051", f"127.0.0.1:{port}"))
    server.start = start_and_tell
    return server


grpc.aio.server = on_loopback
asyncio.run(published.serve(config))
