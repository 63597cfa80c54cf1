"""`fieldstation kit`: files over sockets here, the other tools in `kit_mqtt`, `kit_db` and `kit_slack`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.cli.lazy import LazyGroup
from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import check_bind, client_tls, server_tls
from fieldstation.kit.environment import setting

if TYPE_CHECKING:
    import ssl

FILE = click.Path(path_type=Path)
TOKEN_VARIABLE = "FIELDSTATION_TRANSFER_TOKEN"  # noqa: S105 - the name of a variable, not a secret

COMMANDS = {
    "receive-file": ("fieldstation.cli.kit:receive_file", "Receive files into a folder."),
    "send-file": ("fieldstation.cli.kit:send_file", "Send a file to a receiver."),
    "sync": ("fieldstation.cli.kit:sync", "Send the files of a folder that a receiver lacks."),
    "mqtt": ("fieldstation.cli.kit_mqtt:mqtt", "Publish and subscribe."),
    "db": ("fieldstation.cli.kit_db:db", "Look into a SQLite store and export from it."),
    "slack": ("fieldstation.cli.kit_slack:slack", "Send a message, ask for an approval."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def kit() -> None:
    """Small tools, each usable alone."""


class TransferOptionError(FieldstationError):
    """The options do not fit together: {problem}."""


def _address(default_host: str) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in (
            click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Idle seconds."),
            click.option("--port", type=click.IntRange(0, 65535), required=True, help="TCP port."),
            click.option("--host", default=default_host, show_default=True, help="Address."),
            click.option("--legacy", is_flag=True, help="Use the plain NAME, SIZE, CONTENT framing only."),
            click.option("--token-file", type=FILE, help=f"File with the shared token, else {TOKEN_VARIABLE}."),
        ):
            command = option(command)
        return command

    return decorate


def _token(token_file: Path | None) -> str | None:
    if token_file is None:
        return setting(TOKEN_VARIABLE) or None
    try:
        return token_file.read_text().strip()
    except OSError as error:
        raise TransferOptionError(problem=f"the token file {token_file} cannot be read: {error.strerror}") from error


def _one_way(legacy: bool, token: str | None) -> None:
    if legacy and token is not None:
        raise TransferOptionError(problem="the plain framing of --legacy cannot carry a token")


@kit.command("receive-file")
@click.option("--dir", "folder", type=FILE, required=True, help="Where the files go; nothing is written elsewhere.")
@click.option("--max-size", type=click.IntRange(0), help="Refuse files of more bytes than this.")
@click.option("--once", is_flag=True, help="End after the first peer that sent something.")
@click.option("--connect", is_flag=True, help="Connect to the sender (--legacy) instead of waiting for it.")
@click.option("--tls-certificate", type=FILE, help="PEM certificate chain; turns TLS on.")
@click.option("--tls-key", type=FILE, help="PEM key of the certificate.")
@click.option("--tls-client-ca", type=FILE, help="Only peers with a certificate of this CA get in.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without a token.")
@_address("127.0.0.1")
def receive_file(
    folder: Path,
    max_size: int | None,
    once: bool,
    connect: bool,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    insecure: bool,
    host: str,
    port: int,
    legacy: bool,
    token_file: Path | None,
    timeout_s: float,
) -> None:
    """Receive files into a folder, from many peers at once, until it is stopped.

    Peers of ours (`kit send-file`) and plain ones that send NAME, SIZE and CONTENT are both understood.
    """
    from fieldstation.kit.transfer_model import MAX_SIZE, Limits

    token = _token(token_file)
    _one_way(legacy, token)
    limits = Limits(timeout_s=timeout_s, max_size=MAX_SIZE if max_size is None else max_size)
    if connect:
        _receive_from(host, port, folder, limits)
        return
    tls = _server_tls(tls_certificate, tls_key, tls_client_ca)
    check_bind(host, has_tokens=token is not None or tls_client_ca is not None, insecure=insecure)
    from fieldstation.kit.transfer_listener import TransferListener

    listener = TransferListener(
        folder, host, port, limits=limits, token=token, tls=tls, sessions=not legacy, once=once, on_file=_say
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: listener.stop())
    shown = f"[{listener.address[0]}]" if ":" in listener.address[0] else listener.address[0]
    click.echo(f"ready {'tls' if tls else 'tcp'}://{shown}:{listener.address[1]}")
    listener.serve()


def _say(path: Path, size: int) -> None:
    click.echo(f"received {path} ({size} bytes)")


def _server_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    if key is None:
        raise TransferOptionError(problem="--tls-certificate needs --tls-key")
    try:
        return server_tls(certificate, key, client_ca)
    except OSError as error:
        raise TransferOptionError(problem=f"the certificate or key cannot be used: {error}") from error


def _receive_from(host: str, port: int, folder: Path, limits: Any) -> None:
    from fieldstation.kit.transfer import connect_socket
    from fieldstation.kit.transfer_files import usable_folder
    from fieldstation.kit.transfer_receive import receive_files

    with connect_socket(host=host, port=port) as sock:
        if not receive_files(sock, usable_folder(folder), limits, _say, sessions=False):
            raise TransferOptionError(problem=f"{host}:{port} closed the connection without sending a file")


@kit.command("send-file")
@click.argument("file", type=FILE)
@click.option("--name", help="The name at the other side, instead of the file's own; `a/b.csv` makes a folder.")
@click.option("--listen", is_flag=True, help="Wait for the receiver to connect (with --legacy).")
@click.option("--tls", is_flag=True, help="Use TLS, checking the receiver's certificate.")
@click.option("--ca", type=FILE, help="CA of that certificate, when it is a private one.")
@_address("127.0.0.1")
def send_file(
    file: Path,
    name: str | None,
    listen: bool,
    tls: bool,
    ca: Path | None,
    host: str,
    port: int,
    legacy: bool,
    token_file: Path | None,
    timeout_s: float,
) -> None:
    """Send FILE to `kit receive-file`; ends when the other side has it whole, checked and on disk.

    A transfer that broke goes on where it broke when the command is given again. With --legacy any peer of the plain
    framing can receive, without those guarantees.
    """
    from fieldstation.kit.transfer import drawn

    token = _token(token_file)
    _one_way(legacy, token)
    if listen and not legacy:
        raise TransferOptionError(problem="--listen is for peers of the plain framing; add --legacy")
    with ExitStack() as stack:
        progress = stack.enter_context(drawn(file.name))
        if legacy:
            _send_plainly(file, name, "0.0.0.0" if listen else host, port, tls, ca, timeout_s, progress)  # noqa: S104 - the documented word for "listen everywhere"
            return
        from fieldstation.kit.transfer_session import TransferClient

        context = _client_tls(ca) if tls else None
        peer = stack.enter_context(TransferClient(host, port, token=token, tls=context, timeout_s=timeout_s))
        peer.send(file, name, progress=progress)
    click.echo(f"sent {file} ({file.stat().st_size} bytes)")


def _send_plainly(
    file: Path, name: str | None, host: str, port: int, tls: bool, ca: Path | None, timeout_s: float, progress: Any
) -> None:
    from fieldstation.kit import transfer
    from fieldstation.kit.transfer_socket import finish_sending

    if not file.is_file():
        raise TransferOptionError(problem=f"there is no file {file}")
    with transfer.connect_socket(host=host, port=port) as sock:
        line = _client_tls(ca).wrap_socket(sock, server_hostname=host) if tls else sock
        with line:
            transfer.send_file_name(line, name or file.name)
            size = transfer.send_file(line, file, timeout_s=timeout_s, progress=progress)
            finish_sending(line)
    click.echo(f"sent {file} ({size} bytes)")


def _client_tls(ca: Path | None) -> ssl.SSLContext:
    try:
        return client_tls(ca)
    except OSError as error:
        raise TransferOptionError(problem=f"the CA file {ca} cannot be used: {error}") from error


@kit.command()
@click.argument("folder", type=FILE)
@click.option("--tls", is_flag=True, help="Use TLS, checking the receiver's certificate.")
@click.option("--ca", type=FILE, help="CA of that certificate, when it is a private one.")
@_address("127.0.0.1")
def sync(
    folder: Path,
    tls: bool,
    ca: Path | None,
    host: str,
    port: int,
    legacy: bool,
    token_file: Path | None,
    timeout_s: float,
) -> None:
    """Send the files below FOLDER that the receiver lacks or has with another size or time. Deletes nothing."""
    from fieldstation.kit.transfer_session import TransferClient

    if legacy:
        raise TransferOptionError(problem="the plain framing of --legacy cannot tell what the other side has")
    context = _client_tls(ca) if tls else None
    with TransferClient(host, port, token=_token(token_file), tls=context, timeout_s=timeout_s) as peer:
        report = peer.sync(folder)
    click.echo(f"{len(report.sent)} sent, {len(report.had)} were there, {len(report.refused)} refused")
    for name, reason in report.refused.items():
        click.echo(f"refused {name}: {reason}", err=True)
    if report.refused:
        sys.exit(1)
