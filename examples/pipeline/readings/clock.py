"""A reading at every full period. Change it while it runs: fieldstation pipeline config set period_s 5"""

import asyncio
import time

from google.protobuf.struct_pb2 import Struct

from fieldstation import pipeline


@pipeline.trigger
async def clock(requests, sdk):
    while True:
        period = await sdk.centralized_config.get("period_s", float, 60.0)
        await asyncio.sleep(period - time.time() % period)
        tick = round(time.time() / period)
        reading = Struct()
        reading.update({"id": f"clock-{period:g}-{tick}", "source": "clock", "value": time.time()})
        await sdk.messaging.send_output(reading)
