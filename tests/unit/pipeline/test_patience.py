"""What passes is waited for; what does not is said at once."""

import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import (
    APIError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
    ServerError,
    ServiceUnavailableError,
)

from fieldstation.pipeline.errors import BrokerError
from fieldstation.pipeline.wire.patience import patiently


def answers(*given):
    left = list(given)

    async def ask():
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ask


@pytest.mark.parametrize(
    "passing",
    [
        TimeoutError(),
        NatsTimeoutError(),
        NoRespondersError(),
        ServiceUnavailableError(),
        ServiceUnavailableError(err_code=10008, description="JetStream system temporarily unavailable"),
        ServerError(err_code=10009, description="JetStream not the leader"),
        APIError(code=400, err_code=10005, description="no suitable peers for placement"),
    ],
)
async def test_an_election_is_waited_out(passing):
    assert await patiently(answers(passing, "there"), "nats://h:1") == "there"


@pytest.mark.parametrize(
    "final",
    [
        NotFoundError(err_code=10059),
        ServerError(err_code=10047),
        ServiceUnavailableError(err_code=10023),
        KeyNotFoundError(),
        KeyWrongLastSequenceError(),
    ],
)
async def test_an_answer_is_passed_on_at_once(final):
    with pytest.raises(type(final)):
        await patiently(answers(final), "nats://h:1")


async def test_a_silence_without_end_is_one_sentence_without_the_password():
    with pytest.raises(
        BrokerError, match=r"at nats://ann:\S+@h:1 cannot be used: JetStream has not answered for 0 s"
    ) as e:
        await patiently(answers(NatsTimeoutError()), "nats://ann:secret@h:1", wait_s=0)
    assert "secret" not in str(e.value)
