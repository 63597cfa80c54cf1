"""`fieldstation kit slack`: a message, or a question with an answer."""

from __future__ import annotations

import sys

import click


@click.group()
def slack() -> None:
    """Send a message, ask for an approval. Needs SLACK_BOT_TOKEN, and SLACK_APP_TOKEN for buttons that work."""


@slack.command()
@click.argument("text")
@click.option("--channel", help="Channel.  [default: DEFAULT_SLACK_CHANNEL, #general]")
def send(text: str, channel: str | None) -> None:
    """Post TEXT to a channel."""
    from fieldstation.kit.slack import default_channel
    from fieldstation.kit.slack_api import SlackApi

    SlackApi().call("chat.postMessage", channel=channel or default_channel(), text=text)
    click.echo("sent")


@slack.command()
@click.argument("prompt")
@click.option("--channel", help="Channel.  [default: DEFAULT_SLACK_CHANNEL, #general]")
@click.option("--timeout", "timeout_s", type=float, default=300.0, show_default=True, help="Seconds to wait.")
def ask(prompt: str, channel: str | None, timeout_s: float) -> None:
    """Ask PROMPT with two buttons and wait: prints approved, denied or timeout; exit code 0 only for approved."""
    from fieldstation.kit.slack import ask_for_approval, await_approval_response

    request = ask_for_approval(prompt, channel)
    if not request:
        sys.exit(2)
    answer = await_approval_response(request["ts"], request["channel"], timeout_s)
    click.echo(answer)
    sys.exit(0 if answer == "approved" else 1)
