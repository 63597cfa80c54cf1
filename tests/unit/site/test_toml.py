from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldstation.site.toml import text_of

_texts = st.text(st.characters(exclude_categories=("Cs",)))
_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_texts, _values, max_size=4))
def test_what_is_written_is_read_back(table: dict[str, object]) -> None:
    assert tomllib.loads(text_of(table)) == table


def test_what_is_none_is_left_out_and_a_path_is_text() -> None:
    assert tomllib.loads(text_of({"a": {"b": None, "c": Path("/x")}})) == {"a": {"c": "/x"}}


def test_what_toml_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        text_of({"a": object()})
