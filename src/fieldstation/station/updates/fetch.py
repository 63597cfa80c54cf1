"""Downloads with limits: so many bytes, so much time, only to hosts that were named."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

from fieldstation.station.errors import UpdateError
from fieldstation.station.updates.sources import Request

MAX_BYTES = 500_000_000
DEADLINE_S = 1800.0
_TIMEOUT_S = 30.0
_CHUNK = 1 << 16


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from HTTPS to HTTP, and never hands our token to another host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]  # urllib's own
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise UpdateError(problem="the download was redirected from HTTPS to something else")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            for name in ("Authorization", "Private-token"):
                request.remove_header(name)
        return request


def stream(
    request: Request, *, max_bytes: int = MAX_BYTES, deadline_s: float = DEADLINE_S
) -> Generator[bytes, None, None]:
    """Yield the bytes at an address; UpdateError when they are too many or take too long."""
    opener = urllib.request.build_opener(_Redirects)
    ends = time.monotonic() + deadline_s
    order = urllib.request.Request(request.url, headers=dict(request.headers))  # noqa: S310 - http, https and file are wanted
    try:
        with opener.open(order, timeout=_TIMEOUT_S) as response:
            count = 0
            # read1: a server that drips must not keep us in one read beyond the deadline.
            read = getattr(response, "read1", response.read)
            while chunk := read(_CHUNK):
                count += len(chunk)
                if count > max_bytes:
                    raise UpdateError(problem=f"the download has more than {max_bytes} bytes")
                if time.monotonic() > ends:
                    raise UpdateError(problem=f"the download took longer than {deadline_s:g} s")
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        raise UpdateError(problem=f"{_shown(request.url)} answered {error.code}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UpdateError(problem=f"{_shown(request.url)} could not be read: {reason}") from error


def download(request: Request, path: Path, *, max_bytes: int = MAX_BYTES, deadline_s: float = DEADLINE_S) -> None:
    """Write what lies at an address to `path`, synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in stream(request, max_bytes=max_bytes, deadline_s=deadline_s):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _shown(url: str) -> str:
    return url.partition("?")[0]
