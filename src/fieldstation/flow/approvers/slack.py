"""Approvals in Slack: each request is a message with two buttons; presses and reactions are answers.

The record is the control's; this is a view that catches up with it, also after a restart or an outage of Slack.
Slack hands each press to one connection, so one process of a site runs this: the control.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import require
from fieldstation.flow.desk import Desk
from fieldstation.flow.model import Approval, State, Word, shown
from fieldstation.kit import slack as kit_slack
from fieldstation.kit.environment import setting
from fieldstation.kit.slack_api import API, MAX_TEXT, SlackApi, SlackError, escape

log = logging.getLogger(__name__)

_WORDS = {kit_slack.APPROVE: Word.APPROVE, kit_slack.DENY: Word.DENY}
REACTIONS_EVERY_S = 10.0
RETRY_S = 5.0


class SlackApprover:
    """A service (`core.service.Service`). `users` maps Slack user ids to the names in lists of approvers.

    `may_post` is asked right before each message: a control that was frozen may have been replaced meanwhile.
    """

    name = "approvals in slack"

    def __init__(
        self,
        desk: Desk,
        *,
        channel: str | None = None,
        users: Mapping[str, str] | None = None,
        api: SlackApi | None = None,
        may_post: Callable[[], bool] = lambda: True,
    ) -> None:
        self._desk = desk
        self._channel = channel or kit_slack.default_channel()
        self._users = dict(users or {})
        self._api = api or SlackApi()
        self._may_post = may_post
        self._work = asyncio.Event()
        self._socket: Any = None
        self._bot: str | None = None
        self._unsubscribe = desk.changes.subscribe(lambda approval: self._work.set())

    async def start(self) -> None:
        """Open the Socket Mode line when SLACK_APP_TOKEN is set; without it reactions are the answers."""
        if setting("SLACK_APP_TOKEN"):
            require("slack_sdk", extra="flow", feature="Slack's buttons (SLACK_APP_TOKEN)")

    async def run(self) -> None:
        """Show what is new, hear answers, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if setting("SLACK_APP_TOKEN"):
                group.create_task(self._listen())
            group.create_task(self._look_at_reactions())
            while True:
                self._work.clear()
                behind = await self._catch_up()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if behind else None):
                        await self._work.wait()

    async def stop(self) -> None:
        """Let the line go."""
        self._unsubscribe()
        if self._socket is not None:
            await asyncio.to_thread(self._socket.close)

    def health(self) -> dict[str, object]:
        """Say whether presses are heard."""
        return {"ok": self._socket is None or bool(self._socket.is_connected())}

    # -- the view

    async def _catch_up(self) -> bool:
        behind = False
        for approval in await self._desk.unshown():
            if not self._may_post():
                return True
            try:
                channel = await asyncio.to_thread(self._show, approval)
            except SlackError as error:
                log.warning("approval %s is not shown in Slack yet: %s", approval.id, error)
                behind = True
            else:
                await self._desk.shown(approval, channel)
        return behind

    def _show(self, approval: Approval) -> dict[str, str]:
        text, blocks = message(approval)
        if approval.channel:
            where = dict(approval.channel)
            self._api.call("chat.update", channel=where["channel"], ts=where["ts"], text=text, blocks=blocks)
            return where
        if not approval.is_open:
            return {}  # decided before Slack ever saw it
        posted = self._api.call("chat.postMessage", channel=self._channel, text=text, blocks=blocks)
        return {"channel": str(posted["channel"]), "ts": str(posted["ts"])}

    # -- answers

    async def _listen(self) -> None:
        from slack_sdk import WebClient
        from slack_sdk.socket_mode.builtin import SocketModeClient
        from slack_sdk.socket_mode.response import SocketModeResponse

        loop = asyncio.get_running_loop()
        presses: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        def hear(client: Any, request: Any) -> None:
            # In a thread of the library. Slack wants this within three seconds, whatever comes of it.
            client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
            if request.type == "interactive" and request.payload.get("type") == "block_actions":
                loop.call_soon_threadsafe(presses.put_nowait, request.payload)

        web = WebClient(token=setting("SLACK_BOT_TOKEN"), base_url=setting("SLACK_API_URL", API), timeout=10)
        self._socket = SocketModeClient(app_token=setting("SLACK_APP_TOKEN"), web_client=web)
        self._socket.socket_mode_request_listeners.append(hear)
        while True:
            try:
                await asyncio.to_thread(self._socket.connect)
                break
            except Exception as error:
                log.warning("Slack's Socket Mode cannot be reached; buttons do not work until it is: %s", error)
                await asyncio.sleep(RETRY_S)
        while True:
            await self._pressed(await presses.get())

    async def _pressed(self, payload: dict[str, Any]) -> None:
        user = str(payload.get("user", {}).get("id", ""))
        for action in payload.get("actions", ()):
            word = _WORDS.get(action.get("action_id"))
            identity = str(action.get("value", "")).partition(":")[2]
            if word is None or not identity or not user:
                continue
            problem = await self._answer(identity, user, word, "slack button")
            if problem is not None:
                where = payload.get("channel", {}).get("id") or payload.get("container", {}).get("channel_id")
                with contextlib.suppress(SlackError):
                    await asyncio.to_thread(
                        self._api.call, "chat.postEphemeral", channel=where, user=user, text=escape(problem)
                    )

    async def _answer(self, identity: str, user: str, word: Word, through: str) -> str | None:
        try:
            await self._desk.answer(identity, self._name(user), word, through)
        except FieldstationError as error:
            return str(error)
        except Exception:
            log.exception("an answer from Slack could not be stored")
            return "That did not work; the answer was not stored."
        return None

    def _name(self, user: str) -> str:
        return self._users.get(user, f"slack:{user}")

    async def _look_at_reactions(self) -> None:
        while True:
            try:
                for approval in await self._desk.listing(State.PENDING):
                    if approval.channel:
                        await self._take_reactions(approval)
            except SlackError as error:
                log.debug("reactions: %s", error)
            except Exception:
                log.exception("looking at reactions failed; trying again")
            await asyncio.sleep(REACTIONS_EVERY_S)

    async def _take_reactions(self, approval: Approval) -> None:
        if self._bot is None:
            self._bot = str((await asyncio.to_thread(self._api.call, "auth.test")).get("user_id", ""))
        found = await asyncio.to_thread(
            self._api.call,
            "reactions.get",
            channel=approval.channel["channel"],
            timestamp=approval.channel["ts"],
            full=True,
        )
        reactions = found.get("message", {}).get("reactions", [])
        answered = {answer.who for answer in approval.answers}
        for user in sorted({u for r in reactions for u in r.get("users", ())} - {self._bot}):
            said = kit_slack.decide(reactions, {user}, self._bot)
            if said is not None and self._name(user) not in answered:
                word = Word.DENY if said == "denied" else Word.APPROVE
                await self._answer(approval.id, user, word, "slack reaction")


def message(approval: Approval) -> tuple[str, list[dict[str, Any]]]:
    """Return the fallback text and the blocks of an approval. What would run is shown as it is, not as mark-up."""
    text = f"{approval.title}: {approval.state.value}"
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "plain_text", "text": f"{approval.title}"[:MAX_TEXT]}},
        {
            "type": "rich_text",
            "elements": [
                {
                    "type": "rich_text_preformatted",
                    "elements": [{"type": "text", "text": shown(approval.action)[:MAX_TEXT]}],
                }
            ],
        },
    ]
    about = f"asked by {approval.requester}" + (f", because: {approval.reason}" if approval.reason else "")
    about += f"; digest {approval.digest[:12]}"
    if approval.is_open:
        need = f"; {approval.quorum} people must approve" if approval.quorum > 1 else ""
        blocks.append(_context(f"{about}{need}; closes {approval.expires_at:%Y-%m-%d %H:%M} UTC"))
        blocks.append(
            {
                "type": "actions",
                "elements": [
                    kit_slack.button("Approve", "primary", f"approve:{approval.id}", kit_slack.APPROVE),
                    kit_slack.button("Deny", "danger", f"deny:{approval.id}", kit_slack.DENY),
                ],
            }
        )
        if approval.answers:
            blocks.append(_context("; ".join(f"{a.word.value} by {a.who}" for a in approval.answers)))
    else:
        who = ", ".join(f"{a.who} ({a.word.value}, {a.through})" for a in approval.answers) or "nobody answered"
        blocks.append(_context(f"{approval.state.value.upper()}: {who}. {about}"))
    return text, blocks


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "plain_text", "text": text[:MAX_TEXT]}]}
