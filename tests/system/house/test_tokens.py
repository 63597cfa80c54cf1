"""`fieldstation tokens` against a real PostgreSQL, as a process of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(180)


def tokens(*words, database):
    command = [sys.executable, "-m", "fieldstation", "tokens", *words, "--database", database]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tokens_are_created_listed_and_revoked_on_postgresql(postgres_url):
    created = tokens("create", "ann", "--role", "admin", database=postgres_url)
    assert created.stdout.startswith("fst_")
    assert tokens("list", database=postgres_url).stdout.split() == ["ann", "admin"]
    assert tokens("revoke", "ann", database=postgres_url).returncode == 0
    assert tokens("list", "--json", database=postgres_url).stdout.strip() == "[]"


def test_a_database_that_does_not_answer_is_one_sentence_without_its_password():
    done = tokens("list", database="postgresql://ann:hunter2@127.0.0.1:1/x")
    assert done.returncode == 1
    assert done.stderr.startswith("fieldstation: ")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
