"""Sessions: opened with a token, ended by time, logout, or the token's end."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from fieldstation.core.security import Principal, Role, hash_token
from fieldstation.web.sessions import Sessions, table

START = datetime(2026, 5, 1, tzinfo=UTC)


class Memory:
    """A database that forgets."""

    def __init__(self):
        self.engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
        self.asked = 0

    async def transact(self, work):
        self.asked += 1
        with self.engine.begin() as connection:
            return work(connection)

    read = transact


class Lab:
    def __init__(self):
        self.now = START
        self.database = Memory()
        self.tokens = {hash_token("fst_ann"): Principal("ann", Role.USER)}

    async def control(self):
        sessions = Sessions(self.database, self.tokens.get, hours=12, clock=lambda: self.now)
        await sessions.prepare()
        return sessions


@pytest.fixture
def lab():
    return Lab()


async def test_a_login_holds_for_its_hours(lab):
    sessions = await lab.control()
    cookie = await sessions.open("fst_ann")
    assert await sessions.whose(cookie) == Principal("ann", Role.USER)
    lab.now = START + timedelta(hours=11.9)
    assert await sessions.whose(cookie) is not None
    lab.now = START + timedelta(hours=12)
    assert await sessions.whose(cookie) is None


async def test_it_survives_a_restart_and_is_known_to_a_second_control(lab):
    first, second = await lab.control(), await lab.control()
    cookie = await first.open("fst_ann")
    assert await second.whose(cookie) == Principal("ann", Role.USER)
    assert await (await lab.control()).whose(cookie) is not None


async def test_a_logout_ends_it(lab):
    sessions = await lab.control()
    cookie = await sessions.open("fst_ann")
    await sessions.end(cookie)
    assert await sessions.whose(cookie) is None
    assert await (await lab.control()).whose(cookie) is None


async def test_a_revoked_token_ends_its_sessions_and_a_changed_role_counts_at_once(lab):
    sessions = await lab.control()
    cookie = await sessions.open("fst_ann")
    lab.tokens[hash_token("fst_ann")] = Principal("ann", Role.VIEWER)
    assert await sessions.whose(cookie) == Principal("ann", Role.VIEWER)
    lab.tokens.clear()
    assert await sessions.whose(cookie) is None


async def test_neither_cookie_nor_token_is_in_the_database(lab):
    sessions = await lab.control()
    cookie = await sessions.open("fst_ann")
    with lab.database.engine.begin() as connection:
        text = str(connection.execute(sqlalchemy.select(table)).all())
    assert cookie not in text
    assert "fst_ann" not in text


async def test_guessed_cookies_do_not_ask_the_database_each_time(lab):
    sessions = await lab.control()
    before = lab.database.asked
    for _ in range(50):
        assert await sessions.whose("fss_guess") is None
    assert lab.database.asked - before == 1
