import pickle

import pytest

from fieldstation.core.errors import (
    DeadlineError,
    FieldstationError,
    InsecureBindError,
    MissingExtraError,
    SchemaTooNewError,
    StoreError,
)


class LeaseExpiredError(FieldstationError):
    """The lease of {serial!r} ended {ago_s:.1f} s ago.
    Reserve it again.

    This paragraph is for readers of the source.
    """


def test_the_first_paragraph_of_the_docstring_is_the_message_filled_from_the_fields():
    error = LeaseExpiredError(serial="A1", ago_s=2.25)
    assert str(error) == "The lease of 'A1' ended 2.2 s ago. Reserve it again."
    assert error.fields == {"serial": "A1", "ago_s": 2.25}


def test_the_code_is_made_from_the_name_unless_the_class_sets_it():
    class OddError(FieldstationError):
        """Odd."""

        code = "peculiar"

    assert LeaseExpiredError.code == "lease_expired"
    assert OddError.code == "peculiar"
    assert FieldstationError.code == "error"


def test_a_field_that_was_forgotten_does_not_hide_the_error():
    assert str(DeadlineError(what="The stop")) == "The stop did not finish within ? s."


def test_a_reason_that_is_a_sentence_does_not_end_twice():
    assert str(StoreError(path="..", problem="It is locked.")) == "The database .. cannot be used: It is locked."
    assert str(StoreError(path="a", problem="say a://...")) == "The database a cannot be used: say a://...."


def test_a_message_that_is_given_is_taken_as_it_is():
    assert str(StoreError("The {store} is closed.")) == "The {store} is closed."


def test_errors_keep_message_and_fields_through_pickle():
    error = pickle.loads(pickle.dumps(SchemaTooNewError(path="a.db", found=3, known=2)))
    assert isinstance(error, SchemaTooNewError)
    assert error.fields == {"path": "a.db", "found": 3, "known": 2}
    assert "schema 3" in str(error)


def test_without_docstrings_an_error_still_says_its_code_and_fields(monkeypatch):
    monkeypatch.setattr(LeaseExpiredError, "__doc__", None)
    assert str(LeaseExpiredError(serial="A1")) == "lease_expired {'serial': 'A1'}"


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (MissingExtraError(feature="fieldstation.stream", extra="stream"), "pip install 'fieldstation[stream]'"),
        (InsecureBindError(host="0.0.0.0"), "fieldstation tokens create"),
    ],
)
def test_a_sentence_says_what_to_do(error, mend):
    assert mend in str(error)


def test_a_missing_extra_is_also_an_import_error():
    assert issubclass(MissingExtraError, ImportError)
