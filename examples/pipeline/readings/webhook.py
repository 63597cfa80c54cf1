"""POST a JSON object to /readings. 202 means that the reading is stored by the broker and cannot get lost."""

import os
import uuid

import uvicorn
from fastapi import FastAPI
from google.protobuf.struct_pb2 import Struct

from fieldstation import pipeline


@pipeline.trigger
async def webhook(requests, sdk):
    app = FastAPI()

    @app.post("/readings", status_code=202)
    async def take(body: dict) -> dict:
        reading = Struct()
        reading.update({"id": str(uuid.uuid4()), "source": "webhook", **body})
        await sdk.messaging.send_output(reading)
        return {"id": reading["id"]}

    port = int(os.environ.get("WEBHOOK_PORT", "8090"))
    await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None)).serve()
