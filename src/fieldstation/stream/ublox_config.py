"""The configuration of a u-blox ZED-F9T timing receiver: what a request holds, and the keys it becomes.

Pure functions; a wrong field is a ReceiverConfigError that names it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldstation.stream.errors import ReceiverConfigError

MAX_KEYS = 64  # in one UBX-CFG-VALSET or -VALGET
LAYERS = {"RAM": 1, "BBR": 2, "FLASH": 4}
_READ_LAYERS = {"RAM": 0, "BBR": 1, "FLASH": 2}
_UID = re.compile(r"[0-9a-fA-F]{10}")

Settings = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """A checked request. `layers` is the bit mask of UBX-CFG-VALSET, `verify_layer` the number of UBX-CFG-VALGET."""

    device: str
    baud: int
    uid: str
    settings: Settings
    layers: int
    verify_layer: int


def parse_receiver_config(values: Mapping[str, Any]) -> ReceiverConfig:
    """Check a configuration; numbers may be the floats of a protobuf Struct."""
    device = _device(values.get("device"))
    baud = values.get("baud", 115200)
    if not isinstance(baud, int | float) or baud <= 0 or baud != int(baud):
        raise ReceiverConfigError(field="baud", problem=f"{baud!r} is no baud rate")
    uid = values.get("f9t_uid", "")
    if not isinstance(uid, str) or (uid and not _UID.fullmatch(uid)):
        raise ReceiverConfigError(field="f9t_uid", problem=f"{uid!r} is not ten hexadecimal digits")
    settings = [*_settings(values.get("cfg_key_settings", [])), *_position(values.get("position"))]
    return ReceiverConfig(
        device,
        int(baud),
        uid.lower(),
        # Signals first: the receiver restarts its tracking when they change, and other keys depend on them.
        sorted(settings, key=lambda item: not item[0].startswith("CFG_SIGNAL_")),
        sum(LAYERS[name] for name in set(_layers(values.get("apply_to_layers", ["RAM"])))),
        _READ_LAYERS[_layers([values.get("verify_layer", "RAM")])[0]],
    )


def _device(device: object) -> str:
    if not device:
        raise ReceiverConfigError(field="device", problem="Device path not specified")
    if not isinstance(device, str):
        raise ReceiverConfigError(field="device", problem=f"{device!r} is no text")
    path = Path(device)
    if not path.exists():
        raise ReceiverConfigError(field="device", problem=f"{device} does not exist")
    if not stat.S_ISCHR(path.stat().st_mode):
        raise ReceiverConfigError(field="device", problem=f"{device} is not a character device")
    return device


def _settings(entries: object) -> Settings:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ReceiverConfigError(field="cfg_key_settings", problem="it must be a list of {key, value}")
    settings: Settings = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not {"key", "value"} <= set(entry):
            raise ReceiverConfigError(field="cfg_key_settings", problem=f"{entry!r} has no key and value")
        value = entry["value"]
        settings.append((str(entry["key"]), int(value) if isinstance(value, float) and value == int(value) else value))
    return settings


def _layers(names: object) -> list[str]:
    if not isinstance(names, Sequence) or isinstance(names, str) or not names or not set(names) <= set(LAYERS):
        raise ReceiverConfigError(field="apply_to_layers", problem=f"{names!r}; known are {', '.join(LAYERS)}")
    return list(names)


def _position(position: object) -> Settings:
    """Return the keys of a fixed antenna position: degrees, metres of height, metres of accuracy."""
    if position is None:
        return []
    if not isinstance(position, Mapping) or position.get("format") != "LLH":
        raise ReceiverConfigError(field="position", problem="its format must be LLH")
    try:
        latitude, longitude = float(position["lat_deg"]), float(position["lon_deg"])
        height, accuracy = float(position["height_m"]), float(position["acc_m"])
    except (KeyError, TypeError, ValueError) as error:
        raise ReceiverConfigError(field="position", problem=f"{error} is missing or no number") from error
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180 and accuracy > 0 and -1000 < height < 20_000):
        raise ReceiverConfigError(field="position", problem="it is no place on Earth")
    # Each is split into a coarse part and a "high precision" rest of two more digits.
    lat, lat_rest = _split(round(latitude * 1e9))
    lon, lon_rest = _split(round(longitude * 1e9))
    high, high_rest = _split(round(height * 1e4))
    return [
        ("CFG_TMODE_MODE", 2),
        ("CFG_TMODE_POS_TYPE", 1),
        ("CFG_TMODE_LAT", lat),
        ("CFG_TMODE_LAT_HP", lat_rest),
        ("CFG_TMODE_LON", lon),
        ("CFG_TMODE_LON_HP", lon_rest),
        ("CFG_TMODE_HEIGHT", high),
        ("CFG_TMODE_HEIGHT_HP", high_rest),
        ("CFG_TMODE_FIXED_POS_ACC", round(accuracy * 1e4)),
    ]


def _split(value: int) -> tuple[int, int]:
    coarse = round(value / 100)
    return coarse, value - coarse * 100


def chip_config(values: Mapping[str, Any], uid: str | None = None, device: str | None = None) -> dict[str, Any]:
    """Return one chip's configuration from a file's: its entry in `f9t_chips` merged over the global keys."""
    chips = values.get("f9t_chips", [])
    found = [c for c in chips if (uid and c.get("f9t_uid") == uid) or (device and c.get("device") == device)]
    if not found and chips and not (uid or device):
        found = chips[:1] if len(chips) == 1 else []
    if chips and not found:
        raise ReceiverConfigError(field="f9t_chips", problem="it has no entry for this chip; name its device or uid")
    merged = {key: value for key, value in values.items() if key != "f9t_chips"}
    for entry in found:
        merged |= entry
    return merged
