"""A server that receives files from many peers at once into one folder."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Self

from fieldstation.core.errors import FieldstationError
from fieldstation.kit.transfer_files import usable_folder
from fieldstation.kit.transfer_model import PART_PREFIX, Limits, TransferConnectError
from fieldstation.kit.transfer_receive import OnFile, receive_files

log = logging.getLogger(__name__)

_KEEP_PARTS_S = 7 * 24 * 3600.0


class TransferListener:
    """Bound when it is made (`address`); `serve` accepts until `stop`. One thread for each of at most `max_peers`."""

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: Limits | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        legacy: bool = True,
        sessions: bool = True,
        max_peers: int = 64,
        once: bool = False,
        on_file: OnFile | None = None,
    ) -> None:
        self._folder = usable_folder(folder)
        self._limits = limits or Limits()
        self._token = token
        self._tls = tls
        self._modes = {"legacy": legacy, "sessions": sessions}
        self._places = threading.Semaphore(max_peers)
        self._once = once
        self._on_file = on_file
        self._stopping = threading.Event()
        self._peers: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._server = socket.create_server((host, port), family=family, backlog=128)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or error
            raise TransferConnectError(f"Cannot listen on {host}:{port}: {problem}.") from error
        self._wake, self._waker = socket.socketpair()
        self._sweep()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._server.getsockname()[:2]
        return host, port

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self.serve, name="transfer-listener", daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in list(self._threads):
            thread.join(5)

    def serve(self) -> None:
        """Accept peers until `stop` (or, with `once`, until one has sent a file)."""
        with selectors.DefaultSelector() as selector, self._server, self._wake:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                if self._stopping.is_set():
                    break
                if not self._places.acquire(timeout=0.2):
                    continue  # all places are taken; who waits, waits in the system's queue
                try:
                    self._server.settimeout(0)
                    sock, peer = self._server.accept()
                except OSError:
                    self._places.release()
                    continue
                sock.settimeout(None)
                self._peers.add(sock)
                thread = threading.Thread(
                    target=self._serve_one, args=(sock, peer), name=f"transfer-{peer[0]}", daemon=True
                )
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5)

    def stop(self) -> None:
        """End: running transfers are cut (a session can be resumed), nothing half written keeps its name."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._waker.close()
        for sock in list(self._peers):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _serve_one(self, sock: socket.socket, peer: tuple[object, ...]) -> None:
        count = 0

        def on_file(path: Path, size: int) -> None:
            log.info("received %s (%d bytes) from %s", path, size, peer[0])
            if self._on_file is not None:
                self._on_file(path, size)

        plain = sock
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                sock.settimeout(self._limits.timeout_s)
                sock = self._tls.wrap_socket(sock, server_side=True)
                sock.settimeout(None)
            count = receive_files(sock, self._folder, self._limits, on_file, token=self._token, **self._modes)
        except (FieldstationError, OSError) as error:
            log.warning("peer %s: %s", peer[0], error)
        finally:
            self._peers.discard(plain)
            sock.close()
            self._places.release()
            if count and self._once:
                self.stop()

    def _sweep(self) -> None:
        # Parts of files that nobody came back for within a week.
        for part in self._folder.rglob(f"{PART_PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - part.lstat().st_mtime > _KEEP_PARTS_S:
                    part.unlink()
