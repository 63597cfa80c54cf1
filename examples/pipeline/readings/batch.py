"""Put readings together: a batch leaves when it is full, or half a second after its first reading.

Every reading of a batch stays unacknowledged until the server has the batch, so a crash loses none.
"""

import asyncio

from google.protobuf.struct_pb2 import ListValue, Struct

from fieldstation import pipeline

SIZE = 50
LINGER_S = 0.5
waiting: list[tuple[Struct, asyncio.Future]] = []


@pipeline.task(concurrency=SIZE)
async def batch(sdk, reading: Struct):
    sent = asyncio.get_running_loop().create_future()
    waiting.append((reading, sent))
    if len(waiting) < SIZE:
        await asyncio.wait([sent], timeout=LINGER_S)
        if sent.done():
            sent.result()  # raises what the batch's sender ran into
            return
    members, waiting[:] = waiting[:], []
    rows = ListValue()
    rows.extend([dict(member) for member, _ in members])
    try:
        await sdk.messaging.send_output(rows).confirmed()
    except Exception as error:
        for _, future in members:
            future.set_exception(error)
        raise
    for _, future in members:
        future.set_result(None)
