"""`fieldstation pipeline config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fieldstation.cli.output import json_option, print_json, print_table
from fieldstation.cli.pipeline_reach import (
    nats_option,
    product_option,
    state_option,
    with_bucket,
)


@click.group()
def config() -> None:
    """Read and change the centralized configuration of a pipeline."""


def _scoped(command: Any) -> Any:
    options = [
        product_option,
        state_option,
        nats_option,
        click.option("--manifest", type=click.Path(path_type=Path), default=Path("krt.yaml"), help="The krt.yaml."),
        click.option("--workflow", default="", help="Workflow of the scope; with --process also the process scope."),
        click.option("--process", default="", help="Process of the scope."),
        click.option("--global", "everywhere", is_flag=True, help="The scope of all versions of the product."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@config.command("show")
@_scoped
@json_option
def config_show(as_json: bool, **scope: Any) -> None:
    """List keys and values of one scope (default: product)."""

    async def show(bucket: Any) -> dict[str, str]:
        keys = [key for key in await bucket.keys() if not key.startswith("fieldstation/")]
        return {key: await bucket.get(key) for key in sorted(keys)}

    values = with_bucket(scope, show)
    if as_json:
        print_json(values)
    else:
        print_table(["key", "value"], [[key, value] for key, value in values.items()])


@config.command("set")
@click.argument("key")
@click.argument("value")
@_scoped
def config_set(key: str, value: str, **scope: Any) -> None:
    """Set KEY to VALUE in one scope; running nodes see it at once."""
    from fieldstation.pipeline.settings import check_key

    check_key(key)

    async def put(bucket: Any) -> None:
        await bucket.put(key, value)

    with_bucket(scope, put)


@config.command("delete")
@click.argument("key")
@_scoped
def config_delete(key: str, **scope: Any) -> None:
    """Delete KEY in one scope, so that a wider scope's value is in force again."""
    from fieldstation.pipeline.settings import check_key

    check_key(key)

    async def delete(bucket: Any) -> None:
        await bucket.delete(key)

    with_bucket(scope, delete)
