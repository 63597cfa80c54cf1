"""Read from NATS how a plan's processes do."""

from __future__ import annotations

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from fieldstation.pipeline import names
from fieldstation.pipeline.plan import Plan
from fieldstation.pipeline.status import Reading


async def readings(js: JetStreamContext, plan: Plan) -> dict[tuple[str, str], Reading]:
    """Return (workflow, process) -> Reading. Triggers share nothing: theirs is the sum over their replicas."""
    found: dict[tuple[str, str], Reading] = {}
    for workflow in dict.fromkeys(process.workflow for process in plan.processes):
        of = names.WorkflowNames(plan.product, plan.version, workflow)
        try:
            consumers = await js.consumers_info(of.stream)
        except NotFoundError:
            consumers = []
        dead = await _dead(js, of.stream)
        for process in plan.processes:
            if process.workflow != workflow:
                continue
            stems = [names.durable(of.input(subscription), process.name) for subscription in process.subscriptions]
            mine = [
                info
                for info in consumers
                if any(info.name == s or (process.kind == "trigger" and info.name.startswith(s)) for s in stems)
            ]
            found[workflow, process.name] = Reading(
                handled=sum(
                    (info.delivered.consumer_seq if info.delivered else 0) - (info.num_ack_pending or 0)
                    for info in mine
                ),
                lag=sum(info.num_pending or 0 for info in mine),
                in_work=sum(info.num_ack_pending or 0 for info in mine),
                redelivered=sum(info.num_redelivered or 0 for info in mine),
                dead=dead.get(process.name, 0),
            )
    return found


async def _dead(js: JetStreamContext, stream: str) -> dict[str, int]:
    subject = names.dead_letter_subject(stream, "*")
    try:
        info = await js.stream_info(names.dead_letter_stream(stream), subjects_filter=subject)
    except NotFoundError:
        return {}
    return {key.rpartition(".")[2]: count for key, count in (info.state.subjects or {}).items()}
