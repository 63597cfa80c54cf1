"""Runs in the published client's environment: `published_client.py PORT COMMAND JSON`; prints one JSON line."""

import asyncio
import json
import os
import sys
import tempfile

os.chdir(tempfile.mkdtemp())  # it writes its logs into the current directory
from panoseti_grpc.daq_data.client import AioDaqDataClient, DaqDataClient  # noqa: E402 - after the setting it depends on

ADDED = ("wr_unix_timestamp", "pkt_unix_timestamp", "pandas_unix_timestamp")


def plain(image):
    header = dict(image["header"])
    times = {name: str(header.pop(name)) for name in ADDED if name in header}
    array = image["image_array"]
    return {
        **{key: image[key] for key in ("type", "shape", "bytes_per_pixel", "file", "frame_number", "module_id")},
        "header": header,
        "times": times,
        "dtype": str(array.dtype),
        "pixels": array.tobytes().hex(),
    }


def main():
    port, command, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    DaqDataClient.GRPC_PORT = AioDaqDataClient.GRPC_PORT = port
    config = {"daq_nodes": [{"ip_addr": "127.0.0.1", "data_dir": options.pop("node_data_dir", "/nowhere")}]}
    count = options.pop("count", 0)
    if command == "astream":

        async def stream():
            found = []
            async with AioDaqDataClient(config, None, log_level=40) as client:
                print("streaming", flush=True)
                async for image in await client.stream_images(hosts=[], **options):
                    found.append(plain(image))
                    if len(found) >= count:
                        break
            return found

        result = asyncio.run(stream())
    else:
        with DaqDataClient(config, None, log_level=40) as client:
            if command == "look":
                result = {
                    "hosts": client.get_valid_daq_hosts(),
                    "ping": client.ping("127.0.0.1"),
                    "status": client.get_daq_host_status(),
                    "services": client.reflect_services([]),
                }
            elif command == "init":
                result = client.init_hp_io([], options)
            elif command == "init_sim":
                result = client.init_sim([])
            else:
                print("streaming", flush=True)
                result = []
                for image in client.stream_images(hosts=[], **options):
                    result.append(plain(image))
                    if len(result) >= count:
                        break
    print(json.dumps(result), flush=True)
    os._exit(0)  # its channels keep the interpreter for seconds


main()
