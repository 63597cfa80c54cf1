"""The optional services of a process, each made on first use and from its own packages only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.context import Services
from fieldstation.pipeline.model import Process

if TYPE_CHECKING:
    from fieldstation.pipeline.measurements import Measurements
    from fieldstation.pipeline.persistent import Backend, PersistentStorage
    from fieldstation.pipeline.predictions import Predictions, Table
    from fieldstation.pipeline.registry import ModelRegistry
    from fieldstation.pipeline.traces import Traces


def services(config: NodeConfig, process: Process) -> Services:
    """Return how each service of `process` is made."""

    def persistent() -> PersistentStorage:
        from fieldstation.pipeline.persistent import PersistentStorage

        return PersistentStorage(_backend(config, process), config.minio.internal_folder, process)

    def model_registry() -> ModelRegistry:
        from fieldstation.pipeline.registry import ModelRegistry

        return ModelRegistry(persistent(), process, config)

    def predictions() -> Predictions:
        from fieldstation.pipeline.predictions import Predictions

        return Predictions(_table(config, process), process)

    def measurements() -> Measurements:
        from fieldstation.pipeline.measurements import Measurements

        return Measurements(config, process)

    def traces() -> Traces:
        from fieldstation.pipeline.traces import Traces

        return Traces(config, process)

    return Services(persistent, model_registry, predictions, measurements, traces)


def _backend(config: NodeConfig, process: Process) -> Backend:
    """S3 when an endpoint is configured, else the folder."""
    if config.minio.endpoint:
        from fieldstation.pipeline.s3 import S3Backend

        return S3Backend(config)
    from fieldstation.pipeline.folder import FolderBackend, default_folder

    return FolderBackend(default_folder(config.minio.folder, process))


def _table(config: NodeConfig, process: Process) -> Table:
    """Redis when an endpoint is configured, else the SQLite file."""
    if config.predictions.endpoint:
        from fieldstation.pipeline.redis_table import RedisTable

        return RedisTable(config.predictions)
    from fieldstation.pipeline.folder import default_folder
    from fieldstation.pipeline.sqlite_table import SqliteTable

    return SqliteTable(Path(config.predictions.file or default_folder("", process).parent / "predictions.sqlite"))
