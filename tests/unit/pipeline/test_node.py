import functools

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from fieldstation import pipeline
from fieldstation.pipeline.compose import Runner
from fieldstation.pipeline.errors import MissingHandlerError
from fieldstation.pipeline.model import ProcessType
from fieldstation.pipeline.node import Node, is_async, payload_type


def test_decorators_make_nodes_and_leave_the_function_callable():
    @pipeline.task(concurrency=8)
    def double(sdk, payload):
        return payload * 2

    assert double.node.kind is ProcessType.TASK
    assert double.node.settings == {"concurrency": 8}
    assert double(None, 2) == 4


def test_a_declared_node_takes_further_stages_and_senders():
    @pipeline.exit
    async def out(sdk, payload): ...

    @out.on("ETL")
    async def from_etl(sdk, payload): ...

    @out.initializer
    async def begin(sdk): ...

    assert out.node.handler_for("etl") is from_etl
    assert out.node.handler_for("other") is out.function
    assert out.node.initializer is begin


@pytest.mark.parametrize("kind", [ProcessType.TASK, ProcessType.EXIT])
def test_a_node_without_handler_says_how_to_give_one(kind):
    with pytest.raises(MissingHandlerError, match=r"with_handler"):
        Node(kind).check()


def test_a_trigger_without_runner_says_how_to_give_one():
    with pytest.raises(MissingHandlerError, match=r"with_runner"):
        Node(ProcessType.TRIGGER).check()


async def test_the_documented_chain_builds_a_node_awaited_or_not():
    async def handler(sdk, payload): ...

    chain = (await Runner().initialize()).task_runner()
    built = (
        chain.with_initializer(handler)
        .with_preprocessor(handler)
        .with_handler(handler)
        .with_custom_handler("Etl", handler)
        .with_postprocessor(handler)
        .with_finalizer(handler)
    )
    assert built.node.handlers == {"default": handler, "etl": handler}
    assert Runner().initialize().trigger_runner().with_runner(handler).node.runner is handler
    assert Runner().exit_runner().node.kind is ProcessType.EXIT


def test_async_is_seen_through_partials_and_callable_objects():
    async def coroutine(a, sdk, payload): ...

    class Callable:
        async def __call__(self, sdk, payload): ...

    assert is_async(functools.partial(coroutine, 1))
    assert is_async(Callable())
    assert not is_async(lambda sdk, payload: None)


def test_the_annotation_of_the_payload_is_found():
    async def handler(sdk, message: StringValue) -> None: ...

    class Callable:
        async def __call__(self, sdk, message: StringValue) -> None: ...

    assert payload_type(handler) is StringValue
    assert payload_type(Callable()) is StringValue
    assert payload_type(lambda sdk, payload: None) is None
    assert payload_type(print) is None
