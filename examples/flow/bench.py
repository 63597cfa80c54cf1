"""Reserve two boards, evaluate, ask, act."""

import tempfile
from pathlib import Path

from fieldstation.fleet import PulseCountEvaluation
from fieldstation.flow import approve, approved, command_action, evaluate, flow, reserve_devices, run_command_on_worker


@flow(name="Bench")
def bench(boards: int = 2, pool: str | None = None) -> str:
    with tempfile.TemporaryDirectory() as folder, reserve_devices(boards, client="bench-flow") as bench:
        circuit = Path(folder) / "circuit.bin"
        circuit.write_bytes(bytes(104_090))
        results = evaluate(bench, [PulseCountEvaluation(bench.getSerials(), circuit)])
        counts = {result.serial: result.value for result in results}
        # What will run is fixed before the question, and only that can run after the answer.
        action = command_action(["echo", f"moving on with {counts}"], pool=pool or "")
        record = approve("Move on?", action, reason=f"{len(counts)} boards answered")
        if not approved(record):
            return f"stopped: {record.state}"
        return str(run_command_on_worker(action, pool=pool, approval=record.id))
