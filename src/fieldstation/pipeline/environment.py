"""Read a node's configuration from where its manager puts it: config.yaml, then app.yaml, then the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldstation.core.errors import first_problem
from fieldstation.pipeline.config import NodeConfig, leaves
from fieldstation.pipeline.errors import NodeConfigError, NodeConfigFileError
from fieldstation.pipeline.model import Process, ProcessType
from fieldstation.pipeline.names import bucket

log = logging.getLogger(__name__)

PREFIX = "KAI_"
FOLDER_VARIABLE = "KAI_APP_CONFIG_PATH"
FILES = ("config.yaml", "app.yaml")


def read(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> NodeConfig:
    """Build the configuration; later wins: config.yaml, app.yaml, environment.

    Both files are looked for in `folder` (the working directory) and in the directory KAI_APP_CONFIG_PATH names.
    """
    environ = os.environ if environ is None else environ
    folders = [folder or Path()]
    if environ.get(FOLDER_VARIABLE):
        folders.append(Path(environ[FOLDER_VARIABLE]))
    values: dict[str, Any] = {}
    for name in FILES:
        for place in folders:
            if (place / name).is_file():
                _merge(values, _read_yaml(place / name))
    known = leaves(NodeConfig)
    for key in known:
        for variable in (f"{PREFIX}{key.upper().replace('.', '_')}", f"{PREFIX}{key.upper()}"):
            if environ.get(variable, "") != "":
                _put(values, key, environ[variable])
    _warn_unknown(values, known)
    return build(values)


def build(values: Mapping[str, Any]) -> NodeConfig:
    """Check `values` and fill in what follows from the metadata: stream, output and bucket names."""
    sections = {key: value for key, value in values.items() if value is not None}
    sections.setdefault("metadata", {})
    sections.setdefault("nats", {})
    try:
        config = NodeConfig.model_validate(sections)
    except ValidationError as error:
        key, told = first_problem(error)
        missing = error.errors()[0]["type"] == "missing"
        problem = f"{key} is missing" if missing else f"{key} is wrong ({told})"
        raise NodeConfigError(problem=problem, key=key, variable=variable(key)) from error
    return _complete(config)


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return PREFIX + key.upper().replace(".", "_")


def process_of(config: NodeConfig, kind: ProcessType) -> Process:
    """Who the configured node is, as `kind`."""
    meta = config.metadata
    return Process(meta.product_id, meta.version_tag, meta.workflow_name, meta.process_name, kind, meta.workflow_type)


def with_settings(config: NodeConfig, settings: Mapping[str, Any], *, over: bool = False) -> NodeConfig:
    """Apply `runner.*` keys given in code (`concurrency=8`): below what file and environment say, unless `over`."""
    runner = config.runner
    for key, value in settings.items():
        for name in ("subscriber", "retry", "health", "logger"):
            part = getattr(runner, name)
            if key in type(part).model_fields:
                if over or key not in part.model_fields_set:
                    part = type(part).model_validate({**part.model_dump(exclude_unset=True), key: value})
                    runner = runner.model_copy(update={name: part})
                break
        else:
            raise TypeError(f"a node has no setting {key!r}")
    return config.model_copy(update={"runner": runner})


def _complete(config: NodeConfig) -> NodeConfig:
    process = process_of(config, ProcessType.TASK)
    stream = config.nats.stream or process.names.stream
    nats = config.nats.model_copy(update={"stream": stream, "output": config.nats.output or f"{stream}.{process.name}"})
    scopes = config.centralized_configuration
    product, version, workflow = process.product, process.version, process.workflow
    defaults = {
        "global_": bucket(product),
        "product": bucket(product, version),
        "workflow": bucket(product, version, workflow),
        "process": bucket(product, version, workflow, process.name),
    }
    named = {
        scope: getattr(scopes, scope).model_copy(update={"bucket": getattr(scopes, scope).bucket or name})
        for scope, name in defaults.items()
    }
    return config.model_copy(update={"nats": nats, "centralized_configuration": scopes.model_copy(update=named)})


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # read late: a node that is configured by its environment alone starts without it

    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise NodeConfigFileError(path=path, problem=error) from error
    except yaml.YAMLError as error:
        raise NodeConfigFileError(path=path, problem=str(error).replace("\n", " ")) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise NodeConfigFileError(path=path, problem="it must hold keys and values at the top")
    return data


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _put(values: dict[str, Any], dotted: str, value: str) -> None:
    *path, last = dotted.split(".")
    table = values
    for part in path:
        if not isinstance(table.get(part), dict):
            table[part] = {}
        table = table[part]
    table[last] = value


def _warn_unknown(values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> None:
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if dotted in known:
            continue
        if isinstance(value, Mapping) and any(name.startswith(dotted + ".") for name in known):
            _warn_unknown(value, known, dotted + ".")
        else:
            log.warning("the setting %s is not known and has no effect", dotted)
