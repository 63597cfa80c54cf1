"""The client's side of daq_config.json and network_config.json: which hosts there are and how each is reached."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WITH_PORT = re.compile(r"[^:]+:\d+|\[.+\]:\d+")


@dataclass(frozen=True, slots=True)
class Node:
    """A DAQ node. `host` is how callers name it, `target` what gRPC connects to."""

    host: str
    target: str
    config: Mapping[str, Any]


class HostSet(set[str]):
    """The valid hosts: a set, as the document says, that can also be indexed in the configuration's order."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._order = list(dict.fromkeys(hosts))
        super().__init__(self._order)

    def __iter__(self) -> Iterator[str]:
        return iter([host for host in self._order if host in self])

    def __getitem__(self, index: int) -> str:
        return list(self)[index]

    def add(self, host: str) -> None:
        """Add at the end."""
        if host not in self._order:
            self._order.append(host)
        super().add(host)


def read(config: str | Path | Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Return a configuration given as path or dictionary, with the documented exceptions."""
    if isinstance(config, Mapping):
        return dict(config)  # a copy: the caller's own is not changed
    if not isinstance(config, str | Path):
        raise ValueError(f"{what} must be a path or a dict, not {type(config).__name__}")
    path = Path(config)
    if not path.exists():
        raise FileNotFoundError(f"{what} file {str(path)!r} does not exist")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{what} file {str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{what} file {str(path)!r} holds no JSON object")
    return values


def nodes(
    daq_config: str | Path | Mapping[str, Any] | None,
    network_config: str | Path | Mapping[str, Any] | None,
    port: int,
) -> dict[str, Node]:
    """Return host -> Node. Port forwarding that is switched on replaces the host name by the gateway's."""
    found: dict[str, Node] = {}
    gateways = _gateways(network_config)
    for entry in _daq_nodes(read(daq_config, "daq_config"), "daq_config"):
        host = gateways.get(entry["ip_addr"], entry["ip_addr"])
        found[host] = Node(host, _target(host, port), entry)
    return found


def _gateways(network_config: str | Path | Mapping[str, Any] | None) -> dict[str, str]:
    if not network_config:
        return {}
    gateways = {}
    for entry in _daq_nodes(read(network_config, "network_config"), "network_config"):
        forwarding = entry.get("port_forwarding") or {}
        if forwarding.get("status") is True:
            if not forwarding.get("gw_ip"):
                raise ValueError(f"network_config: port_forwarding of {entry['ip_addr']} has status true but no gw_ip")
            gateways[entry["ip_addr"]] = forwarding["gw_ip"]
    return gateways


def _daq_nodes(config: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    entries = config.get("daq_nodes")
    if not entries:
        raise ValueError(f"{what}: daq_nodes is empty")
    for entry in entries:
        if not isinstance(entry, Mapping) or "ip_addr" not in entry:
            raise ValueError(f"{what}: the daq_node {entry} does not have an 'ip_addr' key")
    return list(entries)


def _target(host: str, port: int) -> str:
    if host.startswith("unix:") or _WITH_PORT.fullmatch(host):
        return host
    if host.endswith(".sock"):
        return f"unix:{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def as_hosts(hosts: object) -> list[str] | None:
    """Return the hosts a caller named, None for all; ValueError for what is neither text, list nor set."""
    if hosts is None or (isinstance(hosts, str | list | set | tuple) and not hosts):
        return None
    if isinstance(hosts, str):
        return [hosts]
    if isinstance(hosts, list | set):
        return list(hosts)
    raise ValueError(f"hosts must be a str, list or set of host names, not {type(hosts).__name__}")
