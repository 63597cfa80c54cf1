"""`fieldstation approvals`: look at requests and answer them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fieldstation.cli.output import json_option, print_json, print_table
from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.codec import to_json
from fieldstation.flow.model import Approval, State, shown


@click.group()
def approvals() -> None:
    """Look at requests for approval and answer them.

    FIELDSTATION_CONTROL is the control server; on one with tokens FIELDSTATION_TOKEN says who you are.
    """


def _server(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--control",
        metavar="URL",
        help="Control server, or several separated by commas.  [default: FIELDSTATION_CONTROL]",
    )(command)


@approvals.command("list")
@click.option("--state", type=click.Choice([s.value for s in State]), help="Only those in this state.")
@json_option
@_server
def listing(control: str | None, state: str | None, as_json: bool) -> None:
    """List requests, the newest first."""
    found = ApprovalsClient(control).listing(state)
    if as_json:
        print_json([to_json(a) for a in found])
        return
    rows = []
    for a in found:
        answers = [f"{x.word.value} by {x.who}" for x in a.answers]
        rows.append([a.id, a.state.value, a.title, shown(a.action), a.requester, answers])
    print_table(["id", "state", "title", "what would run", "asked by", "answers"], rows)


@approvals.command()
@click.argument("identity", metavar="ID")
@json_option
@_server
def show(identity: str, control: str | None, as_json: bool) -> None:
    """Show one request: what exactly would run, who answered, and everything that happened to it."""
    client = ApprovalsClient(control)
    found, trail = client.get(identity), client.audit(identity)
    if as_json:
        print_json(to_json(found) | {"audit": trail})
        return
    click.echo(f"{found.id}  {found.state.value}  {found.title}")
    click.echo(f"asked by {found.requester}, closes {found.expires_at:%Y-%m-%d %H:%M:%S} UTC, digest {found.digest}")
    if found.reason:
        click.echo(f"because: {found.reason}")
    click.echo(f"\n{shown(found.action)}\n")
    for line in trail:
        details = {k: v for k, v in line["details"].items() if v not in ("", None) and k != "digest"}
        click.echo(f"{line['at'][:19]}  {line['who']}  {line['what']}  {details or ''}")


@approvals.command()
@click.argument("identity", metavar="ID")
@click.option("--comment", default="", help="Kept with the answer.")
@_server
def approve(identity: str, comment: str, control: str | None) -> None:
    """Say yes to request ID."""
    _tell(ApprovalsClient(control).approve(identity, comment, through="cli"))


@approvals.command()
@click.argument("identity", metavar="ID")
@click.option("--comment", default="", help="Kept with the answer.")
@_server
def deny(identity: str, comment: str, control: str | None) -> None:
    """Say no to request ID."""
    _tell(ApprovalsClient(control).deny(identity, comment, through="cli"))


@approvals.command()
@click.argument("identity", metavar="ID")
@_server
def cancel(identity: str, control: str | None) -> None:
    """Take request ID back."""
    _tell(ApprovalsClient(control).cancel(identity))


def _tell(approval: Approval) -> None:
    click.echo(f"{approval.id} is {approval.state.value}")
