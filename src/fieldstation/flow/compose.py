"""Put the approvals on a control server: its database, its HTTP app, and Slack when a token is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from fieldstation.core.config import load
from fieldstation.core.security import Principal
from fieldstation.core.service import Service
from fieldstation.fleet.control.while_leading import WhileLeading
from fieldstation.fleet.store import ledger
from fieldstation.fleet.store.ledger import Entry
from fieldstation.fleet.wire.control_server import ControlService
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.flow.approvers.slack import SlackApprover
from fieldstation.flow.config import ApprovalsConfig
from fieldstation.flow.desk import Desk
from fieldstation.flow.model import Approval
from fieldstation.flow.wire.http import router
from fieldstation.kit.environment import setting


def approvals_config(file: Path | None = None, **options: Any) -> ApprovalsConfig:
    """Return the settings from a file, the environment and overrides."""
    return load(ApprovalsConfig, file=file, table="flow.approvals", **options)


def approvals(server: ControlService, config: ApprovalsConfig | None = None) -> tuple[Desk, list[Service]]:
    """Mount `/api/approvals` on the control (before it starts); returns the desk and the services to run beside it.

    They start after the control: it opens the database. Of two controls only the leader closes what is expired and
    speaks to Slack.
    """
    config = config or approvals_config()
    control = server.control
    desk = Desk(server.store, witness=_into_audit)
    server.app.include_router(router(desk, _principal))
    services: list[Service] = [WhileLeading(desk.name, control, lambda: desk)]
    if setting("SLACK_BOT_TOKEN"):

        def slack() -> SlackApprover:
            return SlackApprover(
                desk,
                channel=config.slack_channel,
                users=config.slack_users,
                may_post=lambda: control.leadership.sure,
            )

        services.append(WhileLeading(SlackApprover.name, control, slack))
    return desk, services


def _principal(request: Request) -> Principal | None:
    found: Principal | None = request.scope.get(PRINCIPAL)
    return found


def _into_audit(connection: Connection, approval: Approval, who: str, what: str, details: Mapping[str, Any]) -> None:
    """Write into the control's audit log what happens to approvals, bound to the digest of what they are about."""
    told = {"digest": approval.digest, **{key: value for key, value in details.items() if value not in ("", None)}}
    detail = "; ".join([approval.title, *(f"{key} {value}" for key, value in told.items())])
    ledger.write_audit(connection, [Entry(f"approval {what}", approval.id, who, detail=detail)])
