"""The one base class of everything Fieldstation raises on purpose."""

from __future__ import annotations

from typing import ClassVar


class FieldstationError(Exception):
    """Something went wrong that Fieldstation has no better sentence for; the cause is chained below."""

    # A subclass's docstring is its message: what happened, then what to do. `{name}` in it is filled from the
    # keyword arguments, which stay readable on the error as `fields`.
    code: ClassVar[str] = "error"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            words = "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__.removesuffix("Error"))
            cls.code = words.lstrip("_")

    def __init__(self, message: str | None = None, /, **fields: object) -> None:
        self.fields = fields
        super().__init__(message if message is not None else self._sentence())

    def _sentence(self) -> str:
        # Under `python -OO` there are no docstrings; the code and the fields are then all there is to say.
        if not type(self).__doc__:
            return f"{self.code} {self.fields or ''}".strip()
        import inspect  # when there is something to say; it costs as much as the rest of this package to import
        import re

        paragraph = inspect.cleandoc(type(self).__doc__ or "").split("\n\n", 1)[0].replace("\n", " ")
        sentence = paragraph.format_map(_Fields(self.fields))
        return re.sub(r"(?<=[\w)])\.\.(?=\s|$)", ".", sentence)  # a reason that is a sentence brings its own full stop

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.fields)


class _Fields(dict[str, object]):
    # A field that was forgotten must not hide the error that was to be told.
    def __missing__(self, key: str) -> str:
        return "?"


def _rebuild(cls: type[FieldstationError], message: str, fields: dict[str, object]) -> FieldstationError:
    return cls(message, **fields)


def first_problem(error: Exception) -> tuple[str, str]:
    """Return (dotted field, what is wrong with it) of the first mistake in a pydantic ValidationError.

    The field is empty for a mistake of the whole, and for an error of another kind.
    """
    details = getattr(error, "errors", None)
    if details is None:
        return "", str(error)
    first = details()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")


class ConfigError(FieldstationError):
    """The setting {key} in {source} is wrong: {problem}."""


class MissingExtraError(FieldstationError, ImportError):
    """{feature} needs packages that are not installed here. Install them with: pip install 'fieldstation[{extra}]'"""


class InsecureBindError(FieldstationError):
    """Refusing to listen on {host}: everyone who reaches that address could use this server, and it has no tokens.
    Create one with `fieldstation tokens create`, bind to 127.0.0.1, or say --insecure to open it anyway."""


class DeadlineError(FieldstationError):
    """{what} did not finish within {deadline_s} s."""


class StoreError(FieldstationError):
    """The database {path} cannot be used: {problem}."""


class SchemaTooNewError(StoreError):
    """The database {path} has schema {found}, newer than this version knows ({known}).
    Upgrade Fieldstation, or point it at another database; nothing was changed."""
