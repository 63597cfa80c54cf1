"""Persistent storage on an S3 server, predictions on a Redis server: stand-ins that speak the real protocols."""

import contextlib
import datetime
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import boto3
import pytest

from fieldstation.pipeline.broker import free_port
from fieldstation.pipeline.environment import build, process_of
from fieldstation.pipeline.errors import StorageError
from fieldstation.pipeline.model import ProcessType
from fieldstation.pipeline.optional import services
from fieldstation.pipeline.redis_table import RedisTable

pytestmark = pytest.mark.timeout(120)


def made(**sections):
    config = build(
        {
            "metadata": {
                "product_id": "demo",
                "version_tag": "v1.0.0",
                "workflow_name": "flow",
                "process_name": "mix",
            },
            "nats": {"url": "x"},
            **sections,
        }
    )
    return services(config, process_of(config, ProcessType.TASK))


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    port = free_port()
    moto = Path(sys.executable).parent / "moto_server"
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        process = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="demo",
        aws_secret_access_key="x",
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket="demo")
            break
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    client.put_bucket_versioning(Bucket="demo", VersioningConfiguration={"Status": "Enabled"})
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def test_objects_on_s3_have_versions_and_expiry(s3):
    storage = made(minio={"endpoint": s3, "client_user": "demo", "client_password": "x"}).persistent()
    first = storage.save("s/a", b"one")
    storage.save("s/a", b"two", ttl_days=3)
    assert storage.get("s/a").data == b"two"
    assert storage.get("s/a", first.version).data == b"one"
    assert len(storage.list_versions("s/a")) == 2
    assert "s/a" in [info.key for info in storage.list()]
    assert storage.delete("s/a")
    assert storage.get("s/a") is None
    assert not storage.delete("s/never")
    assert storage.get("s/never") is None
    client = boto3.client(
        "s3", endpoint_url=f"http://{s3}", aws_access_key_id="d", aws_secret_access_key="x", region_name="us-east-1"
    )
    storage.save("s/a", b"three", ttl_days=9)
    rules = client.get_bucket_lifecycle_configuration(Bucket="demo")["Rules"]
    assert [(rule["ID"], rule["Expiration"]["Days"]) for rule in rules] == [("ttl-s/a", 9)]
    assert client.head_object(Bucket="demo", Key="s/a")["Metadata"]["process"] == "mix"


def test_models_on_s3_have_the_documented_place_and_metadata(s3):
    registry = made(minio={"endpoint": s3, "client_user": "demo", "client_password": "x"}).model_registry()
    registry.register_model(b"m1", "net", "1.0.0", "onnx", "first")
    registry.register_model(b"m2", "net", "1.1.0", "onnx")
    assert registry.get_model("net", "1.0.0").model == b"m1"
    assert registry.get_model("net").version == "1.1.0"
    client = boto3.client(
        "s3", endpoint_url=f"http://{s3}", aws_access_key_id="d", aws_secret_access_key="x", region_name="us-east-1"
    )
    metadata = client.head_object(Bucket="demo", Key=".kai/.models/net")["Metadata"]
    assert metadata["model_version"] == "1.1.0"
    assert metadata["model_format"] == "onnx"


def test_an_s3_server_that_is_not_there_is_a_sentence_when_it_is_used(s3):
    storage = made(
        minio={"endpoint": f"127.0.0.1:{free_port()}", "client_user": "a", "client_password": "b"}
    ).persistent()
    with pytest.raises(StorageError, match="The storage http://127"):
        storage.get("a")
    with pytest.raises(StorageError, match="NoSuchBucket"):
        made(minio={"endpoint": s3, "client_user": "a", "client_password": "b", "bucket": "none"}).persistent().list()


def test_keys_come_from_the_identity_server_when_there_is_one(s3):
    asked = []

    class Identity(BaseHTTPRequestHandler):
        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append((self.path, form))
            self.send_response(200)
            self.end_headers()
            if "token" in self.path:
                self.wfile.write(b'{"access_token": "t-1"}')
            else:
                self.wfile.write(
                    b'<R xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Credentials><AccessKeyId>AK</AccessKeyId>'
                    b"<SecretAccessKey>SK</SecretAccessKey><SessionToken>ST</SessionToken></Credentials></R>"
                )

        def log_message(self, *arguments): ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Identity) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"127.0.0.1:{server.server_port}"
        storage = made(
            minio={"endpoint": url, "client_user": "ann", "client_password": "pw"},
            auth={"endpoint": f"http://{url}", "client": "c", "client_secret": "s", "realm": "lab"},
        ).persistent()
        server.shutdown()
    (token_path, token_form), (_, grant) = asked
    assert token_path == "/realms/lab/protocol/openid-connect/token"
    assert (token_form["grant_type"], token_form["username"], token_form["scope"]) == (
        ["password"],
        ["ann"],
        ["openid"],
    )
    assert (grant["Action"], grant["Token"]) == (["AssumeRoleWithClientGrants"], ["t-1"])
    keys = storage.backend._client._request_signer._credentials
    assert (keys.access_key, keys.secret_key, keys.token) == ("AK", "SK", "ST")


def test_predictions_speak_the_documented_redis_commands():
    """Debian's Redis has no JSON and search modules, so a small server that knows the four commands stands in."""
    from fieldstation.pipeline.predictions import Filter, Predictions, TimestampRange

    now = datetime.datetime.now(datetime.UTC)
    with fake_redis() as (port, commands):
        predictions = made(predictions={"endpoint": f"127.0.0.1:{port}", "index": "predictionsIdx"}).predictions()
        assert isinstance(predictions, Predictions)
        assert isinstance(predictions._table, RedisTable)
        for number in range(25):
            predictions.save(f"p{number}", {"value": number})
        assert predictions.get("p3").payload == {"value": 3}
        predictions.update("p3", lambda payload: {"value": payload["value"] + 1})
        assert predictions.get("p3").payload == {"value": 4}
        hour = datetime.timedelta(hours=1)
        assert len(predictions.find(Filter(TimestampRange(now - hour, now + hour), process="mix"))) == 25
        predictions.delete("p3")
    assert next(command for command in commands if command[0] == "JSON.SET")[:3] == ["JSON.SET", "demo:p0", "$"]
    search = next(command for command in commands if command[0] == "FT.SEARCH")
    assert search[1] == "predictionsIdx"
    assert search[2].startswith("@product:{demo} @creation_date:[")
    with pytest.raises(StorageError, match="Redis at"):
        made(predictions={"endpoint": f"127.0.0.1:{free_port()}"}).predictions().get("p1")


@contextlib.contextmanager
def fake_redis():
    import json
    import socketserver

    store, commands = {}, []

    def bulk(text):
        data = text.encode()
        return b"$%d\r\n%s\r\n" % (len(data), data)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            queued = None
            while line := self.rfile.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    parts.append(self.rfile.read(size + 2)[:-2].decode())
                name = parts[0].upper()
                if queued is not None and name not in ("EXEC", "DISCARD"):
                    queued.append(parts)
                    self.wfile.write(b"+QUEUED\r\n")
                elif name == "MULTI":
                    queued = []
                    self.wfile.write(b"+OK\r\n")
                elif name == "EXEC":
                    self.wfile.write(b"*%d\r\n" % len(queued) + b"".join(self.answer(p) for p in queued))
                    queued = None
                else:
                    self.wfile.write(self.answer(parts))

        def answer(self, parts):
            commands.append(parts)
            name = parts[0].upper()
            if name == "JSON.SET":
                store[parts[1]] = parts[3]
                return b"+OK\r\n"
            if name == "JSON.GET":
                return bulk(f"[{store[parts[1]]}]") if parts[1] in store else b"$-1\r\n"
            if name == "DEL":
                return b":%d\r\n" % (store.pop(parts[1], None) is not None)
            if name == "FT.SEARCH":
                offset, count = int(parts[-2]), min(int(parts[-1]), 10)  # a small server page
                page = list(store.items())[offset : offset + count]
                out = b"*%d\r\n:%d\r\n" % (1 + 2 * len(page), len(store))
                for key, value in page:
                    out += bulk(key) + b"*2\r\n" + bulk("$") + bulk(json.dumps(json.loads(value)))
                return out
            return b"+OK\r\n"

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], commands
        server.shutdown()
