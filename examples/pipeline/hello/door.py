import asyncio

from google.protobuf.wrappers_pb2 import StringValue

from fieldstation import pipeline


@pipeline.trigger
async def door(requests, sdk):
    while True:
        answer = await requests.request(StringValue(value="hello"))
        sdk.logger.info("the answer is {}", StringValue.FromString(answer.value).value)
        await asyncio.sleep(1)
