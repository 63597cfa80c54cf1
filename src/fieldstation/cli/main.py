"""The `fieldstation` command: every group and command is imported when it is called, not before."""

from __future__ import annotations

import importlib
import sys

import click

from fieldstation import __version__
from fieldstation.core.errors import FieldstationError

# name -> where it lives and its line in the help, so that `fieldstation --help` imports none of them.
COMMANDS = {
    "fleet": ("fieldstation.cli.fleet:fleet", "Reserve devices that are plugged into many computers."),
    "plugins": ("fieldstation.cli.plugins:plugins", "List drivers and other plugins, and why one does not load."),
    "tokens": ("fieldstation.cli.tokens:tokens", "Create, list and revoke the tokens of users."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is looked up by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, without importing anything."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
