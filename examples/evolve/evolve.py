"""Search for a circuit that gives a target frequency, on boards of a fleet: real ones or the digital twin.

    python examples/evolve/evolve.py --control http://localhost:8080 --boards 2 --target 3000 --png fitness.png

A genome is 16 bits, the content of 16 look-up tables in a design that was placed and routed once (template.asc.gz). A
candidate is that design with other bits in those tables: the client packs it with `icepack`, nothing is synthesised.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldstation.fleet import EvaluationFailed, PulseCountClient, PulseCountEvaluation

HERE = Path(__file__).parent
BITS = 16
ELITE, PARENTS, MUTATION = 2, 6, 1.5 / BITS
CLOSE_ENOUGH = 0.005  # of the target


class Template:
    """The placed design as lines of text, and where in them each gene is."""

    def __init__(self) -> None:
        self._lines = gzip.decompress((HERE / "template.asc.gz").read_bytes()).decode().splitlines()
        tiles = {line: number for number, line in enumerate(self._lines) if line.startswith(".logic_tile")}
        places = json.loads((HERE / "genes.json").read_text())
        # A cell's look-up table is columns 36 to 43 of two rows of its tile.
        self._rows = [tiles[f".logic_tile {x} {y}"] + 1 + 2 * cell for x, y, cell in places]

    def express(self, genome: int) -> str:
        """Return the design, as text for icepack, in which bit n of `genome` fills the table of gene n."""
        lines = list(self._lines)
        for gene, first in enumerate(self._rows):
            bits = "01"[genome >> gene & 1] * 8
            for row in (first, first + 1):
                lines[row] = lines[row][:36] + bits + lines[row][44:]
        return "\n".join(lines) + "\n"


def gray(number: int) -> int:
    """Return the Gray code: neighbouring numbers differ in one bit, so that a small mutation can be a small change."""
    return number ^ number >> 1


def ungray(code: int) -> int:
    """Return the number of a Gray code."""
    number = 0
    while code:
        number ^= code
        code >>= 1
    return number


def error(pulses: int | None, target: int) -> float:
    """Return the distance to the target in octaves; a circuit without pulses, or without a count, is infinitely far."""
    return abs(math.log2(pulses / target)) if pulses else math.inf


def breed(ranked: Sequence[int], known: set[int], size: int, rng: random.Random) -> list[int]:
    """Return the next generation: the best as they are, and unseen children of the best."""
    children = list(ranked[:ELITE])
    while len(children) < size:
        mother, father = rng.sample(ranked[:PARENTS], 2)
        mask = rng.getrandbits(BITS)
        child = mother & mask | father & ~mask
        for bit in range(BITS):
            child ^= (rng.random() < MUTATION) << bit
        if child not in known and child not in children:
            children.append(child)
    return children


@dataclass(frozen=True)
class Generation:
    """Distances to the target in octaves, and the best circuit's frequency in hertz."""

    best: float
    median: float
    hertz: int


def measure(
    client: PulseCountClient, template: Template, genomes: Sequence[int], folder: Path
) -> dict[int, int | None]:
    """Count each genome's pulses, spread over the boards; None where a board could not count."""
    boards = sorted(client.getSerials())
    evaluations, genome_of = [], {}
    for number, genome in enumerate(genomes):
        path = folder / f"{genome:04x}.asc"
        path.write_text(template.express(ungray(genome)))
        evaluations.append(PulseCountEvaluation(boards[number % len(boards)], path))
        genome_of[evaluations[-1].id] = genome
    results = client.evaluateEvaluations(evaluations)
    return {
        genome_of[result.evaluation.id]: None if result.value is EvaluationFailed else result.value
        for result in results
    }


def search(
    client: PulseCountClient, target: int, *, generations: int = 12, size: int = 20, seed: int = 2
) -> list[Generation]:
    """Breed until the best circuit is within half a per cent of `target` hertz, or the generations are used up."""
    rng, template = random.Random(seed), Template()
    counts: dict[int, int | None] = {}
    population = rng.sample(range(1 << BITS), size)
    history: list[Generation] = []
    with tempfile.TemporaryDirectory() as name:
        while len(history) < generations:
            unseen = [genome for genome in population if genome not in counts]
            counts |= measure(client, template, unseen, Path(name))
            ranked = sorted(population, key=lambda genome: error(counts[genome], target))
            errors = [error(counts[genome], target) for genome in ranked]
            best = counts[ranked[0]] or 0
            history.append(Generation(errors[0], errors[len(errors) // 2], best))
            print(f"generation {len(history):2}: best {best:8,} Hz, {errors[0]:.4f} octaves away", flush=True)
            if abs(best - target) <= CLOSE_ENOUGH * target:
                break
            population = breed(ranked, set(counts), size, rng)
    return history


def draw(history: Sequence[Generation], target: int, path: Path) -> None:
    """Draw fitness over generations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    numbers = range(1, len(history) + 1)
    axes.plot(numbers, [g.median for g in history], "o-", color="#9aa4b2", label="median of the generation")
    axes.plot(numbers, [g.best for g in history], "o-", color="#1f6feb", label="best circuit")
    axes.axhline(math.log2(1 + CLOSE_ENOUGH), color="#2da44e", linestyle="--", label="close enough")
    axes.set(yscale="log", xlabel="generation", ylabel="distance to the target (octaves)", xticks=numbers)
    axes.set_title(f"Looking for {target:,} Hz: found {history[-1].hertz:,} Hz", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", default="http://localhost:8080")
    parser.add_argument("--boards", type=int, default=2)
    parser.add_argument("--target", type=int, default=3000, help="hertz, 367 to 24,000,000")
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--png", type=Path, help="draw fitness over generations here")
    options = parser.parse_args()
    with PulseCountClient(options.control, "evolve") as client:
        client.endOnSignal()
        client.reserve(options.boards, wait_for_available=True)
        history = search(client, options.target, generations=options.generations, seed=options.seed)
    if options.png:
        draw(history, options.target, options.png)
    reached = abs(history[-1].hertz - options.target) <= CLOSE_ENOUGH * options.target
    raise SystemExit(0 if reached else f"the target was not reached in {len(history)} generations")


if __name__ == "__main__":
    main()
