"""Ask a server by reflection what it offers, and write it as the documented text."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fieldstation.stream.wire.reflection import V1ALPHA


async def describe_services(channel: Any, target: str, metadata: tuple[tuple[str, str], ...]) -> str:
    """Return target, service list, and one line per method."""
    call = channel.stream_stream(
        f"/{V1ALPHA}/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )(metadata=metadata)

    async def ask(**what: str) -> Any:
        await call.write(reflection_pb2.ServerReflectionRequest(**what))
        return await call.read()

    answer = await ask(list_services="")
    services = [service.name for service in answer.list_services_response.service]
    lines = [f"Reflecting services on {target}:", f"\tfound services: {services}"]
    for service in services:
        if service.startswith("grpc.reflection."):
            continue
        answer = await ask(file_containing_symbol=service)
        for encoded in answer.file_descriptor_response.file_descriptor_proto:
            lines += _methods(descriptor_pb2.FileDescriptorProto.FromString(encoded), service)
    await call.done_writing()
    call.cancel()
    return "\n".join(lines) + "\n"


def _methods(file: descriptor_pb2.FileDescriptorProto, full_name: str) -> list[str]:
    lines = []
    for service in file.service:
        if f"{file.package}.{service.name}" != full_name:
            continue
        lines.append(f"\tfound [yellow]{service.name}[/yellow] service with name: [yellow]{full_name}[/yellow]")
        for method in service.method:
            given = _typed(method.input_type, method.client_streaming)
            returned = _typed(method.output_type, method.server_streaming)
            lines.append(f"\tfound: rpc {method.name}({given}) returns ({returned})")
    return lines


def _typed(full_name: str, streaming: bool) -> str:
    return ("[magenta]stream[/magenta] " if streaming else "") + full_name.rpartition(".")[2]
