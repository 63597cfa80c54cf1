"""After the fire: what programs asked and got, what control wrote down, and what the boards saw must fit together."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def lines(path: Path) -> list[Entry]:
    """The lines of a journal; a program that is killed leaves no half line, since each is one write."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(slots=True)
class Reckoning:
    """Counts, and every contradiction as a sentence."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)

    def programs(self, journals: Mapping[str, list[Entry]], killed: set[str]) -> dict[tuple[str, int], str]:
        """Each program's account in itself. Returns who was told to hold which (serial, fence)."""
        holders: dict[tuple[str, int], str] = {}
        for name, journal in journals.items():
            was_killed = name in killed
            self.expect(was_killed or (bool(journal) and journal[-1]["event"] == "end"), f"{name} did not end")
            self._reservations(name, journal, was_killed, holders)
            self._evaluations(name, journal, was_killed)
            for entry in journal:
                if entry["event"] == "intrude":
                    self.counts[f"intrusions {entry['told']}"] += 1
                    self.expect(not (entry["forged"] and entry["told"] == "accepted"), f"{name}: a forged lease passed")
        return holders

    def _reservations(
        self, name: str, journal: Iterable[Entry], killed: bool, holders: dict[tuple[str, int], str]
    ) -> None:
        asked = 0
        for entry in journal:
            event = entry["event"]
            if event == "ask":
                self.expect(asked == 0, f"{name} asked again before it was answered")
                asked += 1
                self.counts["reservations asked"] += 1
                juggling = entry["kind"] == "juggling"
            elif event == "reserved":
                asked -= 1
                self.counts["reservations granted"] += 1
                self.expect(not juggling, f"{name} got a kind that does not exist")
                for serial, fence in entry["fences"].items():
                    other = holders.setdefault((serial, fence), name)
                    self.expect(other == name, f"{serial} with fence {fence} was given to {other} and to {name}")
            elif event == "refused":
                asked -= 1
                self.counts[f"reservations refused: {entry['code']}"] += 1
                self.expect(bool(entry["why"]), f"{name} was refused without a reason")
        self.counts["reservations unanswered, program killed"] += asked
        self.expect(killed or asked == 0, f"{name} has a reservation without an answer")

    def _evaluations(self, name: str, journal: Iterable[Entry], killed: bool) -> None:
        owed: Counter[tuple[int, str]] = Counter()
        for entry in journal:
            if entry["event"] == "evaluate":
                pairs = [(number, serial) for number in entry["numbers"] for serial in entry["serials"]]
                owed.update(pairs)
                self.counts["evaluations asked"] += len(pairs)
            elif entry["event"] == "not evaluated":
                pairs = [(number, serial) for number in entry["numbers"] for serial in entry["serials"]]
                owed.subtract(pairs)
                self.counts["evaluations refused whole"] += len(pairs)
            elif entry["event"] == "result":
                pair = (entry["n"], entry["serial"])
                owed[pair] -= 1
                if "right" in entry:
                    self.counts["evaluations with a result"] += 1
                    self.expect(entry["right"], f"{name}: the value of {pair} is another's")
                else:
                    self.counts["evaluations with a stated failure"] += 1
                    self.expect(bool(entry["why"]), f"{name}: {pair} failed without a reason")
        for pair, left in owed.items():
            self.expect(left >= 0, f"{name}: {pair} ended {1 - left} times")
            self.expect(killed or left <= 0, f"{name}: {pair} never ended")
            self.counts["evaluations unanswered, program killed"] += max(0, left)

    def audit(self, audit: Iterable[Entry], holders: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
        """Control's book: every device is reserved and ended in turn. Returns who holds which (serial, fence) there."""
        granted: dict[tuple[str, int], str] = {}
        fence: Counter[str] = Counter()
        holder: dict[str, str] = {}
        for row in audit:
            for serial in str(row["target"]).split(","):
                if row["action"] == "reserve":
                    self.expect(
                        serial not in holder, f"{serial} was reserved for {row['client']} while it was reserved"
                    )
                    fence[serial] += 1
                    holder[serial] = row["client"]
                    granted[serial, fence[serial]] = row["client"]
                elif row["action"] == "end":
                    self.expect(serial in holder, f"the reservation of {serial} ended twice")
                    holder.pop(serial, None)
        self.expect(not holder, f"reservations that never ended: {holder}")
        for key, name in holders.items():
            self.expect(
                granted.get(key) == name, f"{name} was told that it holds {key}; control knows {granted.get(key)}"
            )
        self.counts["devices reserved"] = len(granted)
        self.counts["devices reserved, told to the program"] = len(holders)
        return granted

    def fences(self, devices: Iterable[Entry], granted: Mapping[tuple[str, int], str]) -> None:
        """Each lease raises the number by one: as many leases as the number says, none lost, none doubled."""
        for device in devices:
            count = sum(serial == device["serial"] for serial, _ in granted)
            self.expect(
                device["fence"] == count, f"{device['serial']} has fence {device['fence']} after {count} reservations"
            )

    def boards(self, journals: Iterable[list[Entry]], granted: Mapping[tuple[str, int], str]) -> set[tuple[int, str]]:
        """What the boards measured and for whom: one holder after another. Returns (number, serial) of each."""
        highest: dict[str, int] = defaultdict(int)
        seen = set()
        for journal in journals:
            for entry in journal:
                serial, head = entry["serial"], json.loads(entry["head"])
                fence, client = head["fences"][serial], head["client"]
                self.counts["bitstreams measured"] += 1
                self.expect(
                    fence >= highest[serial],
                    f"{serial} was commanded by {client} with fence {fence} after fence {highest[serial]}",
                )
                highest[serial] = max(highest[serial], fence)
                owner = granted.get((serial, fence))
                self.expect(owner == client, f"{serial} was commanded by {client}; fence {fence} was given to {owner}")
                seen.add((client, head["n"], serial))
        return seen

    def measured(self, journals: Mapping[str, list[Entry]], seen: set[Any]) -> None:
        """No result was made up: the board has measured that very bitstream."""
        for name, journal in journals.items():
            for entry in journal:
                if entry["event"] == "result" and "right" in entry:
                    key = (name, entry["n"], entry["serial"])
                    self.expect(key in seen, f"a result that no board measured: {key}")

    def table(self) -> str:
        return "\n".join(f"{count:8}  {what}" for what, count in sorted(self.counts.items()) if count)
