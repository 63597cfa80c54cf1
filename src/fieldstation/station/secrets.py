"""Secrets never leave a station and never reach a log; a mask that comes back stands for the stored secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "***"
# Paths to key files and the names of users are no secrets; these words name values that are.
_SECRET_KEY = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|token|api_?key|private_key|credentials?)$", re.IGNORECASE
)


def is_secret(key: str) -> bool:
    """Say whether the value under `key` is a secret."""
    return _SECRET_KEY.search(key) is not None


def masked(value: Any) -> Any:
    """Return a copy of a JSON value with every secret string replaced by `***`."""
    if isinstance(value, Mapping):
        return {k: MASK if is_secret(k) and isinstance(v, str) and v else masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def unmasked(value: Any, stored: Any) -> Any:
    """Return a copy of `value` in which each masked secret is the one at the same path of `stored`."""
    if isinstance(value, Mapping):
        old = stored if isinstance(stored, Mapping) else {}
        return {
            k: old[k] if v == MASK and is_secret(k) and k in old else unmasked(v, old.get(k)) for k, v in value.items()
        }
    if isinstance(value, list):
        old_items = stored if isinstance(stored, list) else []
        return [unmasked(v, old_items[i] if i < len(old_items) else None) for i, v in enumerate(value)]
    return value


def secret_values(value: Any) -> Iterator[str]:
    """Yield every secret string in a JSON value, so that free text can be searched for them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if is_secret(key) and isinstance(item, str) and item and item != MASK:
                yield item
            else:
                yield from secret_values(item)
    elif isinstance(value, list):
        for item in value:
            yield from secret_values(item)
