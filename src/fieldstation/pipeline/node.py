"""What a user writes: callables for each stage of a node, by builder methods or by the decorators below."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fieldstation.pipeline.errors import MissingHandlerError
from fieldstation.pipeline.model import ProcessType

Callback = Callable[..., Any]

DEFAULT = "default"  # the handler for every sender without one of its own


@dataclass(slots=True)
class Node:
    """The callables of one node, sync or async. `handlers` is by lower-cased sender name, `default` for the rest."""

    kind: ProcessType
    initializer: Callback | None = None
    runner: Callback | None = None
    preprocessor: Callback | None = None
    handlers: dict[str, Callback] = field(default_factory=dict)
    postprocessor: Callback | None = None
    finalizer: Callback | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # dotted `runner.` keys given in code

    def check(self) -> None:
        """Raise MissingHandlerError when the callable this kind cannot do without is missing."""
        if self.kind is ProcessType.TRIGGER:
            if self.runner is None:
                raise MissingHandlerError(kind="trigger", what="a runner function", method="with_runner")
        elif DEFAULT not in self.handlers:
            raise MissingHandlerError(kind=self.kind.value, what="a handler", method="with_handler")

    def handler_for(self, sender: str) -> Callback:
        """Return the sender's own handler (case does not count), else the default one."""
        return self.handlers.get(sender.lower()) or self.handlers[DEFAULT]


def is_async(callback: Callback) -> bool:
    """True for coroutine functions, also behind functools.partial and in callable objects."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))  # noqa: B004 - it is looked at, not called


def payload_type(callback: Callback) -> Any:
    """Return the annotation of a handler's second parameter, or None: a message class there asks for unpacking."""
    target = callback
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target):
        target = getattr(target, "__call__", target)  # noqa: B004 - it is looked at, not called
    try:
        hints = typing.get_type_hints(target)
        parameters = [name for name in inspect.signature(callback).parameters if name != "self"]
    except (NameError, TypeError, ValueError):
        return None
    return hints.get(parameters[1]) if len(parameters) > 1 else None


@dataclass(slots=True)
class Declared:
    """A node made by a decorator. Calling it calls the function; `run()` starts the node."""

    node: Node
    function: Callback

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as a unit test does."""
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # `handler.on("etl")`, `.initializer`, `.finalizer`, ... add further callables to the same node.
        if name in ("initializer", "preprocessor", "postprocessor", "finalizer"):
            return functools.partial(self._set, name)
        raise AttributeError(name)

    def _set(self, stage: str, function: Callback) -> Callback:
        setattr(self.node, stage, function)
        return function

    def on(self, sender: str) -> Callable[[Callback], Callback]:
        """Decorate the handler for messages of one sender."""

        def register(function: Callback) -> Callback:
            self.node.handlers[sender.lower()] = function
            return function

        return register


def task(function: Callback | None = None, **settings: Any) -> Any:
    """Make a task of `handler(sdk, payload)`: `@task` or `@task(concurrency=8)`; settings are `runner.*` keys."""
    return _declare(ProcessType.TASK, function, settings)


def exit(function: Callback | None = None, **settings: Any) -> Any:  # noqa: A001 - the documents' word
    """Make an exit of `handler(sdk, payload)`; it hides the builtin only here."""
    return _declare(ProcessType.EXIT, function, settings)


def trigger(function: Callback | None = None, **settings: Any) -> Any:
    """Make a trigger of `runner(trigger_runner, sdk)`."""
    return _declare(ProcessType.TRIGGER, function, settings)


def _declare(kind: ProcessType, function: Callback | None, settings: dict[str, Any]) -> Any:
    def declare(function: Callback) -> Declared:
        node = Node(kind, settings=settings)
        if kind is ProcessType.TRIGGER:
            node.runner = function
        else:
            node.handlers[DEFAULT] = function
        return Declared(node, function)

    return declare if function is None else declare(function)
