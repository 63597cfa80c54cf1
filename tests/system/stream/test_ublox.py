"""UbloxControl against a simulated receiver that speaks UBX over a pseudo-terminal."""

import asyncio
import json
import subprocess
import sys

import grpc
import pytest

from fieldstation.stream.sim.receiver import SimulatedF9t
from fieldstation.stream.ublox_client import AioUbloxControlClient, UbloxControlClient
from fieldstation.testing import running

pytestmark = pytest.mark.timeout(60)

SETTINGS = [{"key": "CFG_RATE_MEAS", "value": 500}, {"key": "CFG_SIGNAL_GPS_ENA", "value": 1}]
POSITION = {"format": "LLH", "lat_deg": 37.3, "lon_deg": -121.6, "height_m": 1283, "acc_m": 0.1}


@pytest.fixture(scope="module")
def host():
    with running("fieldstation", "stream", "ublox", "serve", "--port", "0") as server:
        yield server.url.removeprefix("http://")


@pytest.fixture
def receiver():
    with SimulatedF9t(rate_hz=50) as found:
        yield found


async def refusal(awaitable):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value.code().name, caught.value.details()


async def take(stream, count):
    found = []
    async with asyncio.timeout(20):
        async for message in stream:
            found.append(message)
            if len(found) == count:
                break
    await stream.aclose()
    return found


async def test_settings_are_written_verified_and_messages_flow(host, receiver):
    config = {
        "device": receiver.device, "f9t_uid": "aabbccddee", "cfg_key_settings": SETTINGS, "position": POSITION,
        "apply_to_layers": ["RAM", "BBR"], "verify_layer": "RAM",
    }  # fmt: skip
    async with AioUbloxControlClient(host) as client:
        assert await client.ping(host)
        assert await client.init_f9t(None, config, force=True)
        assert receiver.settings["CFG_RATE_MEAS"] == 500
        assert receiver.settings["CFG_TMODE_LAT"] == 373000000
        assert receiver.set_messages[0][0] == "CFG_SIGNAL_GPS_ENA"
        everything = await take(client.capture_ublox(), 12)
        assert {"TIM-TP", "NAV-TIMEUTC"} <= {message["name"] for message in everything}
        pulses = await take(client.capture_ublox(None, ["TIM"]), 5)
        assert {message["name"] for message in pulses} == {"TIM-TP"}
        assert pulses[0]["host"] == host
        assert pulses[0]["parsed_data"]["week"] == 2300.0
        assert pulses[0]["payload"].startswith(b"\xb5b\x0d\x01")


async def test_more_than_64_settings_go_in_several_messages(host, receiver):
    many = [{"key": f"CFG_MSGOUT_UBX_{name}_{port}", "value": 1}
            for name in ("NAV_PVT", "NAV_SAT", "NAV_SIG", "NAV_DOP", "NAV_POSLLH", "NAV_STATUS", "NAV_VELNED",
                         "NAV_TIMEUTC", "NAV_TIMEGPS", "NAV_CLOCK", "TIM_TP", "MON_HW", "MON_RF", "NAV_EOE")
            for port in ("I2C", "UART1", "UART2", "USB", "SPI")]  # fmt: skip
    async with AioUbloxControlClient(host) as client:
        assert await client.init_f9t(None, {"device": receiver.device, "cfg_key_settings": many}, force=True)
    assert [len(keys) for keys in receiver.set_messages] == [64, 6]


@pytest.mark.parametrize(
    ("faults", "change", "code", "words"),
    [
        ({}, {"device": ""}, "INVALID_ARGUMENT", "Device path not specified"),
        ({}, {"f9t_uid": "0123456789"}, "INVALID_ARGUMENT", "aabbccddee"),
        ({}, {"cfg_key_settings": [{"key": "CFG_NO_SUCH", "value": 1}]}, "INVALID_ARGUMENT", "cfg_key_settings"),
        ({"deaf": True}, {}, "INTERNAL", "did not answer SEC-UNIQID"),
        ({"model": "NEO-M8T"}, {}, "INTERNAL", "no ZED-F9T"),
        ({"refuse": frozenset({"CFG_RATE_MEAS"})}, {}, "INTERNAL", "refused the settings"),
        ({"forget": frozenset({"CFG_RATE_MEAS"})}, {}, "INTERNAL", "CFG_RATE_MEAS = 0 instead of 500"),
    ],
)
async def test_what_init_refuses(host, faults, change, code, words):
    with SimulatedF9t(**faults) as receiver:
        async with AioUbloxControlClient(host) as client:
            config = {"device": receiver.device, "cfg_key_settings": SETTINGS} | change
            found = await refusal(client.init_f9t(None, config, force=True))
            assert found[0] == code
            assert words in found[1]
            assert (await refusal(anext(client.capture_ublox())))[0] == "FAILED_PRECONDITION"


async def test_streaming_clients_are_protected_unless_forced(host, receiver):
    async with AioUbloxControlClient(host) as client:
        await client.init_f9t(None, {"device": receiver.device}, force=True)
        stream = client.capture_ublox()
        await anext(stream)
        code, details = await refusal(client.init_f9t(None, {"device": receiver.device}))
        assert code == "FAILED_PRECONDITION"
        assert "1 CaptureUblox clients" in details
        assert await client.init_f9t(None, {"device": receiver.device}, force=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code() == grpc.StatusCode.CANCELLED


async def test_an_unplugged_receiver_ends_its_streams_with_the_reason(host):
    receiver = SimulatedF9t(rate_hz=50)
    async with AioUbloxControlClient(host) as client:
        await client.init_f9t(None, {"device": receiver.device}, force=True)
        stream = client.capture_ublox()
        await anext(stream)
        receiver.unplug()
        messages = []

        async def read():
            async with asyncio.timeout(20):
                async for message in stream:
                    messages.append(message)

        with pytest.raises(grpc.aio.AioRpcError):
            await read()
        assert messages[-1]["type"] == "ERROR"


async def test_poll_is_declared_but_not_implemented_and_a_bad_pattern_is_named(host, receiver):
    async with grpc.aio.insecure_channel(host) as channel:
        code, _ = await refusal(channel.unary_unary("/ubloxcontrol.UbloxControl/PollMessage")(b""))
        assert code == "UNIMPLEMENTED"
    async with AioUbloxControlClient(host) as client:
        await client.init_f9t(None, {"device": receiver.device}, force=True)
        code, details = await refusal(anext(client.capture_ublox(None, ["("])))
        assert code == "INVALID_ARGUMENT"
        assert "regular expression" in details


def test_the_blocking_client(host, receiver):
    with UbloxControlClient(host) as client:
        assert client.ping(host)
        assert client.init_f9t(host, {"device": receiver.device}, force=True)
        messages = client.capture_ublox(None, ["NAV"])
        assert next(messages)["name"] == "NAV-TIMEUTC"
        messages.close()


def test_the_command_line(host, receiver, tmp_path):
    def fieldstation(*words):
        command = [sys.executable, "-m", "fieldstation", "stream", "ublox", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    config = tmp_path / "f9t.json5"
    config.write_text(
        "{ // comments are allowed\n cfg_key_settings: [{key: 'CFG_RATE_MEAS', value: 250}],\n"
        f" f9t_chips: [{{f9t_uid: 'aabbccddee', device: '{receiver.device}'}},], }}"
    )
    assert fieldstation("ping", "--hosts", host).stdout == f"{host}: answers\n"
    done = fieldstation("init", receiver.device, "--hosts", host, "--config", config, "--force")
    assert done.stdout == "initialised\n", done.stderr
    assert receiver.settings == {"CFG_RATE_MEAS": 250}
    done = fieldstation("capture", "--hosts", host, "--patterns", "TIM-TP", "--count", "2", "--json")
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["TIM-TP", "TIM-TP"]
    done = fieldstation("init", "/dev/none", "--hosts", host)
    assert done.returncode == 1
    assert "/dev/none does not exist" in done.stderr
    assert "Traceback" not in done.stderr
