from fieldstation import pipeline


@pipeline.task
async def echo(sdk, payload):
    return payload
