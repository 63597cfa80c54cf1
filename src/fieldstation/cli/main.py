"""The `fieldstation` command: every group and command is imported when it is called, not before."""

from __future__ import annotations

import sys

import click

from fieldstation import __version__
from fieldstation.cli.lazy import LazyGroup
from fieldstation.core.errors import FieldstationError

COMMANDS = {
    "demo": ("fieldstation.cli.demo:demo", "Everything, simulated, on this machine."),
    "fleet": ("fieldstation.cli.fleet:fleet", "Reserve devices that are plugged into many computers."),
    "plugins": ("fieldstation.cli.plugins:plugins", "List drivers and other plugins, and why one does not load."),
    "tokens": ("fieldstation.cli.tokens:tokens", "Create, list and revoke the tokens of users."),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fieldstation")
def cli() -> None:
    """Reserve, run, stream, process, decide: one runtime for laboratory and field instruments."""


def main() -> None:
    """Run the command line; an expected failure is one sentence on stderr and exit code 1."""
    try:
        cli(prog_name="fieldstation")
    except FieldstationError as error:
        sys.stderr.write(f"fieldstation: {error}\n")
        sys.exit(1)
