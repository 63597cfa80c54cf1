"""The optional services of a process, each made on first use and from its own packages only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.context import Services
from fieldstation.pipeline.model import Process

if TYPE_CHECKING:
    from fieldstation.pipeline.measurements import Measurements
    from fieldstation.pipeline.persistent import PersistentStorage
    from fieldstation.pipeline.predictions import Predictions
    from fieldstation.pipeline.registry import ModelRegistry


def services(config: NodeConfig, process: Process) -> Services:
    """Return how each service of `process` is made."""

    def persistent() -> PersistentStorage:
        from fieldstation.pipeline.persistent import open_storage

        return open_storage(config, process)

    def model_registry() -> ModelRegistry:
        from fieldstation.pipeline.registry import ModelRegistry

        return ModelRegistry(persistent(), process, config)

    def predictions() -> Predictions:
        from fieldstation.pipeline.predictions import open_predictions

        return open_predictions(config, process)

    def measurements() -> Measurements:
        from fieldstation.pipeline.measurements import Measurements

        return Measurements(config, process)

    return Services(persistent, model_registry, predictions, measurements)
