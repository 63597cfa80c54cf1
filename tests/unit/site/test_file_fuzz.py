from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldstation.site.errors import SiteFileError
from fieldstation.site.file import NAMED, PLAIN, SINGLE, read
from fieldstation.site.plan import roles
from fieldstation.site.toml import text_of

_WORDS = sorted(
    {word for table in [*SINGLE, *NAMED, *PLAIN, ("machines",)] for word in table}
    | {key for model in [*SINGLE.values(), *NAMED.values(), *PLAIN.values()] for key in model.model_fields}
    | {"a", "b-1", "x y", ""}
)
_values = st.recursive(
    st.sampled_from([True, 0, 1, -1, 8080, 65536, 1.5, "", "a", "127.0.0.1", "0.0.0.0", "x y", "1s", "\x00"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=3),
    max_leaves=6,
)


_TABLES = {**SINGLE, **PLAIN, **{(*table, name): model for table, model in NAMED.items() for name in ("a", "b-1")}}


@st.composite
def _sites(draw: st.DrawFn) -> dict[str, Any]:
    """Tables that exist, with keys that mostly exist, with values that mostly do not fit."""
    data: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(sorted(_TABLES)), max_size=5, unique=True)):
        table = data
        for word in path:
            table = table.setdefault(word, {})
        keys = st.sampled_from([*_TABLES[path].model_fields, "no_such_key"])
        table.update(draw(st.dictionaries(keys, _values, max_size=4)))
    return {**data, **draw(st.dictionaries(st.sampled_from(_WORDS), _values, max_size=1))}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_sites())
def test_any_tables_are_a_site_or_a_list_of_mistakes(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text_of(data))
    try:
        found = read(path)
    except SiteFileError:
        return
    if any(name != "nats" for name in found.roles) and not found.machines:
        assert roles(found)
