"""The settings of the site's own NATS server: JetStream, and a listener for MQTT 3.1.1."""

from __future__ import annotations

import json
from pathlib import Path

from fieldstation.site.config import NatsRole


def server_settings(role: NatsRole, name: str, store: Path, token: str | None) -> str:
    """Return the configuration file of nats-server."""
    quoted = json.dumps
    lines = [
        f"server_name: {quoted(name)}",
        f"listen: {quoted(f'{role.host}:{role.port}')}",
        f"jetstream {{ store_dir: {quoted(str(store))}, max_file_store: {role.max_store},"
        f" sync_interval: {role.sync_interval} }}",
    ]
    tls = ""
    if role.tls_certificate is not None:
        tls = f"tls {{ cert_file: {quoted(str(role.tls_certificate))}, key_file: {quoted(str(role.tls_key))} }}"
        lines.append(tls)
    if token is not None:
        lines.append(f"authorization {{ token: {quoted(token)} }}")
    if role.mqtt_port:
        lines += ["mqtt {", f"  listen: {quoted(f'{role.host}:{role.mqtt_port}')}", *([f"  {tls}"] if tls else []), "}"]
    return "\n".join(lines) + "\n"
