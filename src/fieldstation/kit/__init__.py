"""Small tools, each usable alone: files over sockets, MQTT, AWS IoT, SQLite tables, Slack, logs.

Every name below is imported when it is first used; importing this package costs nothing and opens nothing.
"""

from fieldstation.core.plugins import lazy_names

_MODULES = {
    "transfer": (
        "connect_socket receive_file receive_file_name receive_file_size send_file send_file_name send_file_size"
    ),
    "transfer_session": "TransferClient",
    "transfer_listener": "TransferListener",
    "mqtt": "Message MqttClient MqttSettings",
    "mqtt_blocking": "BlockingMqttClient",
    "mqtt_outbox": "MqttOutbox",
    "aws_iot": "AWSIoTClient connect_aws_iot disconnect_aws_iot publish_message subscribe_topic",
    "database": "Database",
    "logs": "get_logger",
    "logs_console": "logger",
    "slack": "ask_for_approval await_approval_response send_slack_message slack_client",
    "slack_alerts": "SlackLoguruSink get_slack_sink",
    "environment": "load_env",
    "device": "is_worker_node",
}
_NAMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_NAMES)

__getattr__ = lazy_names(__name__, None, _NAMES)
