"""The raw limits of the fleet's bench: an empty FastAPI endpoint, and a bare python-socketio emit to everybody."""

from __future__ import annotations

import socket
import sys

import socketio
import uvicorn
from fastapi import FastAPI

app = FastAPI()
sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


@app.get("/empty")
async def empty() -> dict[str, int]:
    return {"amount": 0}


@app.post("/emit")
async def emit() -> dict[str, str]:
    await sio.emit("event", '{"serial": "meta", "contents": [{"event": "devices_available", "amount": 4}]}')
    return {"status": "ok"}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"ready http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server = uvicorn.Server(uvicorn.Config(socketio.ASGIApp(sio, app), log_level="warning", access_log=False))
    server.run(sockets=[listener])
