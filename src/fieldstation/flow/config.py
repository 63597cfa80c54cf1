"""Settings of the approvals, the table [flow.approvals] and FIELDSTATION_FLOW_APPROVALS_*."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ApprovalsConfig(BaseModel):
    """How approvals reach people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slack_channel: str | None = Field(None, description="Where requests are shown; else DEFAULT_SLACK_CHANNEL.")
    slack_users: dict[str, str] = Field(
        default_factory=dict,
        description="Slack user id -> name in lists of approvers; others are slack:<id>. JSON in the environment.",
    )

    @field_validator("slack_users", mode="before")
    @classmethod
    def _from_environment(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value
