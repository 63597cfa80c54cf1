"""What a trigger's runner function is handed: begin requests, wait for their responses."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fieldstation.pipeline.errors import RequestFailedError
from fieldstation.pipeline.messaging import Messaging
from fieldstation.pipeline.model import Message, MessageType
from fieldstation.pipeline.responses import Responses


class TriggerRunner:
    """The first argument of a trigger's runner function."""

    def __init__(self, responses: Responses, messaging: Messaging) -> None:
        self._responses = responses
        self._messaging = messaging

    def get_response_channel(self, request_id: str, timeout_s: float | None = None) -> Coroutine[Any, Any, Any]:
        """Return an awaitable for the payload (an Any) of the next response to `request_id`; None at shutdown.

        Answers are kept from this call on, or from the sending with that id, so no order of the two misses one. An
        ERROR response has an empty payload, as documented; `get_response` also tells its text. Without an answer in
        `timeout_s` it raises RequestTimeoutError.
        """
        self._responses.expect(request_id)
        return self._payload(request_id, timeout_s)

    async def _payload(self, request_id: str, timeout_s: float | None) -> Any:
        message = await self._responses.next(request_id, timeout_s)
        return None if message is None else message.payload

    async def get_response(self, request_id: str, timeout_s: float | None = None) -> Message | None:
        """Return the whole next response: payload, type, error text and sender; None at shutdown."""
        return await self._responses.next(request_id, timeout_s)

    async def responses(self, request_id: str, timeout_s: float | None = None) -> AsyncIterator[Message]:
        """Yield every response to `request_id` as it comes, until shutdown or `timeout_s` without one."""
        while (message := await self._responses.next(request_id, timeout_s)) is not None:
            yield message

    async def request(self, message: Any, timeout_s: float | None = 30.0, chan: str | None = None) -> Any:
        """Send `message` as a new request and return the payload (an Any) of its response.

        Raises RequestFailedError with the text of an ERROR response, RequestTimeoutError without one in time, and
        PublishError when the request itself could not be sent.
        """
        request_id = str(uuid.uuid4())
        self._responses.expect(request_id)
        try:
            await self._messaging.send_output_with_request_id(message, request_id, chan)
            answer = await self._responses.next(request_id, timeout_s)
        finally:
            self._responses.forget(request_id)
        if answer is None:
            raise RequestFailedError(text="the trigger is shutting down")
        if answer.message_type == MessageType.ERROR:
            raise RequestFailedError(text=answer.error)
        return answer.payload
