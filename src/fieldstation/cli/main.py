"""The `fieldstation` command: every group and command is imported when it is called, not before."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fieldstation import __version__
from fieldstation.cli.lazy import LazyGroup
from fieldstation.core import log
from fieldstation.core.errors import FieldstationError

COMMANDS = {
    "audit": ("fieldstation.cli.audit:audit", "Look whether the audit log is as it was written."),
    "demo": ("fieldstation.cli.demo:demo", "Everything, simulated, on this machine."),
    "up": ("fieldstation.cli.up:up", "Run the roles of a site file that belong to this machine."),
    "check": ("fieldstation.cli.up:check", "Validate a site file: every mistake with its line."),
    "doctor": ("fieldstation.cli.doctor:doctor", "Look at this machine: what is missing, what to do."),
    "site": ("fieldstation.cli.site:site", "Write units, containers and compose files from a site file."),
    "fleet": ("fieldstation.cli.fleet:fleet", "Reserve devices that are plugged into many computers."),
    "flow": ("fieldstation.cli.flow:flow", "Orchestrate with Prefect, run approved commands on workers."),
    "kit": ("fieldstation.cli.kit:kit", "Small tools: files over sockets, MQTT, SQLite, Slack."),
    "approvals": ("fieldstation.cli.approvals:approvals", "Look at requests for approval and answer them."),
    "stream": ("fieldstation.cli.stream:stream", "Stream camera frames live from acquisition files."),
    "pipeline": ("fieldstation.cli.pipeline:pipeline", "Process messages in a graph of nodes on NATS JetStream."),
    "plugins": ("fieldstation.cli.plugins:plugins", "List drivers and other plugins, and why one does not load."),
    "station": ("fieldstation.cli.station:station", "Run a remote computer unattended, lose no reading."),
    "tokens": ("fieldstation.cli.tokens:tokens", "Create, list and revoke the tokens of users."),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fieldstation")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    envvar="FIELDSTATION_LOG_LEVEL",
    help="The least important messages to write to stderr.",
)
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="FIELDSTATION_LOG_FILE",
    help="Write them to this file too; it is rotated at 10 MB and five are kept.",
)
@click.option("--log-json", is_flag=True, envvar="FIELDSTATION_LOG_JSON", help="Write one JSON object per message.")
def cli(log_level: str, log_file: Path | None, log_json: bool) -> None:
    """Reserve, run, stream, process, decide: one runtime for laboratory and field instruments."""
    log.setup(log_level, file=log_file, as_json=log_json)


def main() -> None:
    """Run the command line; an expected failure is one sentence on stderr and exit code 1."""
    try:
        cli(prog_name="fieldstation")
    except FieldstationError as error:
        sys.stderr.write(f"fieldstation: {log.mask(str(error))}\n")
        sys.exit(1)
