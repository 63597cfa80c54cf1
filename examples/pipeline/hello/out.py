from fieldstation import pipeline


@pipeline.exit
async def out(sdk, payload):
    return payload
