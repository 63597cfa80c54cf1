from google.protobuf.wrappers_pb2 import StringValue
from mix import mix

from fieldstation.testing.pipeline import run_node


async def test_mix_shouts():
    async with run_node(mix) as node:
        [output] = await node.send(StringValue(value="hello"))
    assert output.unpack(StringValue).value == "HELLO"
