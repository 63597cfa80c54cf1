"""Where the pages take from: the control this panel is mounted on, and what its settings name."""

from __future__ import annotations

from fieldstation.core.service import Service
from fieldstation.fleet.control import Control
from fieldstation.flow.desk import Desk
from fieldstation.web.config import PanelConfig


class Sources:
    """Everything that pages show."""

    def __init__(self, control: Control, desk: Desk | None, config: PanelConfig) -> None:
        self.control = control
        self.desk = desk
        self.config = config

    def services(self) -> list[Service]:
        """What must run for the sources that are configured."""
        return []
