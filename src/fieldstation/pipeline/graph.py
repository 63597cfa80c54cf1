"""The rules a workflow's graph keeps: who may listen to whom. Pure; knows the manifest only by its fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, and the path of keys and list indexes to where it is."""

    path: tuple[str | int, ...]
    text: str


# type of a process -> types it may subscribe to
MAY_HEAR = {"trigger": ("exit",), "task": ("trigger", "task"), "exit": ("trigger", "task")}


def check_graph(manifest: Any) -> list[Problem]:
    """Return every mistake in names and subscriptions of a manifest whose fields are well formed."""
    problems = list(_twins((("workflows", i), w.name) for i, w in enumerate(manifest.workflows)))
    for index, workflow in enumerate(manifest.workflows):
        at: tuple[str | int, ...] = ("workflows", index, "processes")
        problems += _twins(((*at, i), p.name) for i, p in enumerate(workflow.processes))
        kinds = {process.name: process.type for process in workflow.processes}
        problems += [
            Problem(at, f"workflow {workflow.name} needs at least one {kind}")
            for kind in ("trigger", "exit")
            if kind not in kinds.values()
        ]
        for i, process in enumerate(workflow.processes):
            problems += _check_subscriptions(process, kinds, (*at, i, "subscriptions"))
        problems += _check_cycles(workflow, at)
        problems += _check_stores(workflow, at)
    return problems


def _twins(named: Iterable[tuple[tuple[str | int, ...], str]]) -> Iterable[Problem]:
    seen: set[str] = set()
    for path, name in named:
        if name in seen:
            yield Problem((*path, "name"), f"the name {name} is there twice")
        seen.add(name)


def _check_subscriptions(process: Any, kinds: dict[str, str], at: tuple[str | int, ...]) -> Iterable[Problem]:
    if process.type != "trigger" and not process.subscriptions:
        yield Problem(at, f"the {process.type} {process.name} listens to nobody")
    seen: set[str] = set()
    for i, subscription in enumerate(process.subscriptions):
        path = (*at, i)
        sender, dot, channel = subscription.partition(".")
        if subscription in seen:
            yield Problem(path, f"{subscription} is subscribed twice")
        seen.add(subscription)
        if sender not in kinds:
            yield Problem(path, f"there is no process {sender}")
        elif sender == process.name:
            yield Problem(path, f"{sender} subscribes to itself")
        elif kinds[sender] not in MAY_HEAR[process.type]:
            allowed = " or ".join(MAY_HEAR[process.type])
            yield Problem(path, f"a {process.type} may hear {allowed}, and {sender} is a {kinds[sender]}")
        if dot and (not channel or "." in channel or "*" in channel or ">" in channel or " " in channel):
            yield Problem(path, f"the channel {channel!r} must be one word without dots or wildcards")


def _check_cycles(workflow: Any, at: tuple[str | int, ...]) -> Iterable[Problem]:
    """Tasks that feed each other in a ring never come to an end."""
    hears = {
        p.name: [s.partition(".")[0] for s in p.subscriptions] if p.type != "trigger" else []
        for p in workflow.processes
    }
    index = {process.name: i for i, process in enumerate(workflow.processes)}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done or name not in hears:
            return None
        for sender in hears[name]:
            if sender != name and (ring := walk(sender, (*path, name))):
                return ring
        done.add(name)
        return None

    for name in hears:
        if name not in done and (ring := walk(name, ())):
            yield Problem((*at, index[ring[0]], "subscriptions"), f"the graph has a cycle: {' <- '.join(ring)}")
            return


def _check_stores(workflow: Any, at: tuple[str | int, ...]) -> Iterable[Problem]:
    scopes: dict[str, str] = {}
    for i, process in enumerate(workflow.processes):
        store = process.objectStore
        if store is not None and scopes.setdefault(store.name, store.scope) != store.scope:
            yield Problem((*at, i, "objectStore"), f"the store {store.name} has two scopes")
