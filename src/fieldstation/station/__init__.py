"""Remote stations that run unattended: procedures, a durable outbox, uplinks, updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldstation.core.plugins import lazy_names

if TYPE_CHECKING:
    from fieldstation.station.agent import MessagingAgent as MessagingAgent
    from fieldstation.station.config import Config as Config
    from fieldstation.station.config import ForeignConfig as ForeignConfig
    from fieldstation.station.config import ForeignGeneralConfig as ForeignGeneralConfig
    from fieldstation.station.config import MQTTBrokerConfig as MQTTBrokerConfig
    from fieldstation.station.constants import log_level_is_visible as log_level_is_visible
    from fieldstation.station.grid import get_time_to_next_datapoint as get_time_to_next_datapoint
    from fieldstation.station.heartbeat import beat as beat
    from fieldstation.station.lifecycle import LifecycleManager as LifecycleManager
    from fieldstation.station.lock import with_automation_lock as with_automation_lock
    from fieldstation.station.logger import Logger as Logger
    from fieldstation.station.messages import ConfigMessageBody as ConfigMessageBody
    from fieldstation.station.messages import DataMessageBody as DataMessageBody
    from fieldstation.station.messages import LogMessageBody as LogMessageBody
    from fieldstation.station.messages import MessageArchiveItem as MessageArchiveItem
    from fieldstation.station.messages import MessageQueueItem as MessageQueueItem
    from fieldstation.station.state import State as State
    from fieldstation.station.state import StateInterface as StateInterface
    from fieldstation.station.state import SystemState as SystemState
    from fieldstation.station.toggle import MainloopToggle as MainloopToggle
    from fieldstation.station.updater import Updater as Updater
    from fieldstation.station.version import Version as Version

_HERE = "fieldstation.station."
_NAMES = {
    "Config": "config",
    "ConfigMessageBody": "messages",
    "DataMessageBody": "messages",
    "ForeignConfig": "config",
    "ForeignGeneralConfig": "config",
    "LifecycleManager": "lifecycle",
    "LogMessageBody": "messages",
    "Logger": "logger",
    "MQTTBrokerConfig": "config",
    "MainloopToggle": "toggle",
    "MessageArchiveItem": "messages",
    "MessageQueueItem": "messages",
    "MessagingAgent": "agent",
    "State": "state",
    "StateInterface": "state",
    "SystemState": "state",
    "Updater": "updater",
    "Version": "version",
    "beat": "heartbeat",
    "get_time_to_next_datapoint": "grid",
    "log_level_is_visible": "constants",
    "with_automation_lock": "lock",
}

__getattr__ = lazy_names(__name__, "station", {name: _HERE + module for name, module in _NAMES.items()})
__all__ = sorted(_NAMES)
