import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldstation.kit.transfer_model import (
    HeaderError,
    SizeLimitError,
    UnsafeNameError,
    check_size,
    parse_name,
    parse_size,
    safe_name,
    safe_relative,
)


@pytest.mark.parametrize(
    "name", ["data.csv", "2026-01-31_09:05.csv", "Messung Nr. 7 (neu).txt", "ünïcødé 数据.bin", "-rf", "x" * 255]
)
def test_plain_names_pass_unchanged(name: str) -> None:
    assert safe_name(name) == name


HOSTILE = [
    "", ".", "..", "../../x", "/etc/passwd", "a/b", "..\\..\\x", "C:\\x", "C:x", "a\0b", "a\nb", "a\rb", "\x1b[2J",
    ".bashrc", ".fieldstation-0123.part", "x" * 256, "\ud800", "gpj.\u202efdp", " x", "x ", "x.", "\x7f",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_leave_its_folder_or_deceive_is_refused(name: str) -> None:
    with pytest.raises(UnsafeNameError):
        safe_name(name)


@given(st.text(max_size=40))
def test_whatever_passes_is_one_component_of_a_path(name: str) -> None:
    try:
        safe_name(name)
    except UnsafeNameError:
        return
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert "\0" not in name


@pytest.mark.parametrize("path", ["a/../b", "/a", "a//b", "a/", "./a", "a/.git/x", "/".join("a" * 33)])
def test_every_part_of_a_relative_path_is_checked(path: str) -> None:
    with pytest.raises(UnsafeNameError):
        safe_relative(path)


def test_a_relative_path_comes_back_in_parts() -> None:
    assert safe_relative("run 1/frames/0001.pff") == ("run 1", "frames", "0001.pff")


@pytest.mark.parametrize(
    "line", [b"", b"-5", b"+5", b"1_000", b" 12", b"12 ", b"0x10", b"1.0", b"9" * 20, "\uff11\uff12".encode()]
)
def test_a_size_is_plain_decimal_digits(line: bytes) -> None:
    with pytest.raises(HeaderError):
        parse_size(line)


def test_sizes_of_up_to_nineteen_digits_are_read() -> None:
    assert parse_size(b"0") == 0
    assert parse_size(b"9" * 19) == 10**19 - 1


def test_a_size_above_the_limit_is_named_with_the_limit() -> None:
    with pytest.raises(SizeLimitError, match=r"11 bytes and the limit is 10"):
        check_size(11, 10)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UnsafeNameError, match="UTF-8"):
        parse_name(b"\xff\xfe.csv")
