"""The part of Prefect 3's HTTP API that a light worker and the deployments of commands need. Standard library only."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from fieldstation.core.log import mask
from fieldstation.core.retry import Backoff
from fieldstation.flow.errors import PrefectUnreachableError
from fieldstation.kit.environment import setting

FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

BUSY_TRIES = 8
_BUSY = Backoff(initial_s=0.3, ceiling_s=5.0)

COMMAND_FLOW = "Run Approved Command"
COMMAND_ENTRYPOINT = "fieldstation.flow.pool_flow.run_approved_command"


class NotFoundError(PrefectUnreachableError):
    """The Prefect server {url} does not know this: {problem}."""


class _BusyError(PrefectUnreachableError):
    """The Prefect server {url} is too busy: {problem}. Try again later."""


class PrefectApi:
    """`url` is PREFECT_API_URL unless given; PREFECT_API_KEY (Cloud) and PREFECT_API_AUTH_STRING are honoured."""

    def __init__(self, url: str | None = None, *, timeout_s: float = 15.0) -> None:
        self.url = (url or setting("PREFECT_API_URL", "http://127.0.0.1:4200/api")).rstrip("/")
        self._timeout_s = timeout_s

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API; None for an answer without content."""
        headers = {"Content-Type": "application/json"}
        if key := setting("PREFECT_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        elif login := setting("PREFECT_API_AUTH_STRING"):
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        data = json.dumps(body).encode() if body is not None else None
        # A server on SQLite answers 503 while its database is busy, and has then done nothing.
        for attempt in range(BUSY_TRIES - 1):
            try:
                return self._once(method, path, data, headers)
            except _BusyError:
                time.sleep(_BUSY.delay(attempt))
        return self._once(method, path, data, headers)

    def _once(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - the user's own address
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310 - as above
                text = response.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                problem = error.read(2000).decode("utf-8", "replace") or f"HTTP {error.code}"
                kind = {404: NotFoundError, 429: _BusyError, 503: _BusyError}.get(error.code, PrefectUnreachableError)
            raise kind(url=mask(self.url), problem=f"{method} {path}: {problem}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", None) or error)
            raise PrefectUnreachableError(url=mask(self.url), problem=problem) from error

    def pool(self, name: str) -> dict[str, Any] | None:
        """Return a work pool, None when there is none of that name."""
        try:
            found: dict[str, Any] = self.call("GET", f"/work_pools/{_quoted(name)}")
        except NotFoundError:
            return None
        return found

    def heartbeat(self, pool: str, worker: str, every_s: float) -> None:
        """Say that a worker of the pool is alive."""
        body = {"name": worker, "heartbeat_interval_seconds": max(1, int(every_s))}
        self.call("POST", f"/work_pools/{_quoted(pool)}/workers/heartbeat", body)

    def scheduled(self, pool: str) -> list[dict[str, Any]]:
        """Return the flow runs of a pool that are due."""
        found: list[dict[str, Any]] = self.call("POST", f"/work_pools/{_quoted(pool)}/get_scheduled_flow_runs", {})
        return [entry["flow_run"] for entry in found]

    def deployment(self, identity: str) -> dict[str, Any]:
        """Return a deployment."""
        found: dict[str, Any] = self.call("GET", f"/deployments/{identity}")
        return found

    def run(self, identity: str) -> dict[str, Any]:
        """Return a flow run."""
        found: dict[str, Any] = self.call("GET", f"/flow_runs/{identity}")
        return found

    def set_state(self, run: str, kind: str, name: str, message: str = "", *, force: bool = False) -> bool:
        """Move a flow run; False when Prefect's rules refuse (another worker was faster, it was cancelled)."""
        state = {"type": kind, "name": name, "message": message}
        answer = self.call("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": force})
        return bool(answer["status"] == "ACCEPT")

    def put_artifact(self, run: str, data: dict[str, Any], text: str) -> None:
        """Keep the result of a command with its run: `text` is what the page shows."""
        body = {
            "key": f"command-{run}",
            "type": "markdown",
            "description": json.dumps(data),
            "data": text,
            "flow_run_id": run,
        }
        self.call("POST", "/artifacts/", body)

    def artifact(self, run: str) -> dict[str, Any] | None:
        """Return what `put_artifact` kept, None when there is nothing."""
        try:
            found = self.call("GET", f"/artifacts/command-{run}/latest")
        except NotFoundError:
            return None
        result: dict[str, Any] = json.loads(found["description"])
        return result

    def command_deployment(self, pool: str) -> str:
        """Return the id of the pool's deployment of approved commands, made when it is missing."""
        flow = self.call("POST", "/flows/", {"name": COMMAND_FLOW})
        body = {
            "name": f"commands of {pool}",
            "flow_id": flow["id"],
            "work_pool_name": pool,
            "entrypoint": COMMAND_ENTRYPOINT,
            "path": ".",
            "enforce_parameter_schema": False,
            "parameter_openapi_schema": {"type": "object", "properties": {}},
        }
        return str(self.call("POST", "/deployments/", body)["id"])

    def create_run(self, deployment: str, parameters: dict[str, Any], name: str, key: str) -> str:
        """Schedule a run now; a repeat with the same key finds the first one."""
        body = {
            "parameters": parameters,
            "name": name,
            "idempotency_key": key,
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        return str(self.call("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def as_markdown(command: str, result: dict[str, Any]) -> str:
    """Return a command and its output as Prefect's page shows it."""
    fence = "`" * 8
    return (
        f"{fence}\n$ {command}\n{result['output']}\n{fence}\nexit code {result['exit_code']}, {result['duration_s']} s"
    )
