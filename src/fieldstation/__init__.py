"""One runtime for laboratory and field instruments: reserve, run, stream, process, decide.

Each name below is imported when it is first used; `import fieldstation` alone costs nothing.
"""

from typing import Any as _Any

__version__ = "0.1.0"

# Where each documented name lives. Written here and not with core.plugins.lazy_names: that import has a price, too.
_NAMES = {
    "fieldstation.kit": (
        "AWSIoTClient ask_for_approval await_approval_response connect_aws_iot connect_socket disconnect_aws_iot "
        "get_logger logger publish_message receive_file receive_file_name receive_file_size send_file send_file_name "
        "send_file_size send_slack_message subscribe_topic"
    ),
    "fieldstation.flow": "example_shell_command_flow request_slack_approval run_command_on_worker",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
