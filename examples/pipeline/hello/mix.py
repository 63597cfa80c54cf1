from google.protobuf.wrappers_pb2 import StringValue

from fieldstation import pipeline


@pipeline.task
async def mix(sdk, message: StringValue) -> StringValue:
    return StringValue(value=message.value.upper())
