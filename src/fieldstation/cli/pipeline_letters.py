"""`fieldstation pipeline dead-letters`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.cli.output import json_option, print_json, print_table
from fieldstation.cli.pipeline_reach import (
    manifest_argument,
    nats_option,
    product_of,
    product_option,
    state_option,
    with_plan,
    with_stream,
)

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from fieldstation.pipeline.plan import Plan


@click.group("dead-letters")
def dead_letters() -> None:
    """Messages that a process gave up on: look at them, put them back, delete them."""


@dead_letters.command("list")
@manifest_argument
@product_option
@state_option
@nats_option
@json_option
def dead_list(manifest: Path, product: str, folder: Path | None, nats_url: str, as_json: bool) -> None:
    """List the dead letters of every workflow."""
    from fieldstation.pipeline.state import folder_of
    from fieldstation.pipeline.wire.deadletters import dead_letters as letters_of

    name = product_of(product, manifest)

    async def listing(js: JetStreamContext, plan: Plan) -> list[Any]:
        return [(stream.name, letter) for stream in plan.streams for letter in await letters_of(js, stream.name)]

    found = with_plan(manifest, name, folder_of(name, folder), nats_url, listing)
    if as_json:
        rows = []
        for stream, letter in found:
            row = dataclasses.asdict(letter)
            row |= {"stream": stream, "at": letter.at.isoformat()}
            del row["body"]
            rows.append(row)
        print_json(rows)
    else:
        print_table(
            ["number", "process", "at", "request", "error"],
            [
                [letter.number, letter.process, f"{letter.at:%Y-%m-%d %H:%M:%S}", letter.request_id, letter.error]
                for _, letter in found
            ],
        )


def _one_letter(command: Any) -> Any:
    options = [
        click.argument("number", type=int),
        click.option("--manifest", type=click.Path(path_type=Path), default=Path("krt.yaml"), help="The krt.yaml."),
        product_option,
        state_option,
        nats_option,
        click.option("--workflow", default="", help="Workflow, when there are several."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@dead_letters.command("show")
@_one_letter
@json_option
def dead_show(number: int, as_json: bool, **where: Any) -> None:
    """Show one dead letter with its payload."""
    from fieldstation.pipeline.errors import MessageError
    from fieldstation.pipeline.wire import codec
    from fieldstation.pipeline.wire.deadletters import dead_letter

    letter = with_stream(where, lambda js, stream: dead_letter(js, stream, number))
    row = {**dataclasses.asdict(letter), "at": letter.at.isoformat()}
    body = row.pop("body")
    try:
        row["payload"] = codec.to_text(codec.decode(body, letter.subject).payload)
    except MessageError as error:
        row["payload"] = f"not readable: {error}"
    if as_json:
        print_json(row)
    else:
        for key, value in row.items():
            click.echo(f"{key:11} {value}")


@dead_letters.command("replay")
@_one_letter
def dead_replay(number: int, **where: Any) -> None:
    """Give a dead letter to its process (and to nobody else) again."""
    from fieldstation.pipeline.wire.deadletters import replay

    letter = with_stream(where, lambda js, stream: replay(js, stream, number))
    click.echo(f"{letter.process} gets message {number} again")


@dead_letters.command("delete")
@_one_letter
def dead_delete(number: int, **where: Any) -> None:
    """Delete a dead letter for good."""
    from fieldstation.pipeline.wire.deadletters import discard

    letter = with_stream(where, lambda js, stream: discard(js, stream, number))
    click.echo(f"deleted message {number} of {letter.process}")
