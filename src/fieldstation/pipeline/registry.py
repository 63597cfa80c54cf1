"""`sdk.model_registry`: models with semantic versions, kept on the persistent storage. Sync, safe in threads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.errors import BadModelError, ModelExistsError, ModelNotFoundError
from fieldstation.pipeline.model import Process
from fieldstation.pipeline.persistent import PersistentStorage, Stored

_SEMVER = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-.]+)?"
)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model version without its bytes. `format` is free text, such as `onnx`."""

    name: str
    version: str
    description: str
    format: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model version with its bytes."""

    name: str
    version: str
    description: str
    format: str
    model: bytes


class ModelRegistry:
    """Models are objects below the reserved folder; each registration is a version of the object."""

    def __init__(self, storage: PersistentStorage, process: Process, config: NodeConfig) -> None:
        self._backend = storage.backend
        self._folder = f"{config.minio.internal_folder}/{config.model_registry.folder_name}/"
        self._process = process

    def register_model(
        self, model: BinaryIO | bytes, name: str, version: str, model_format: str, description: str = ""
    ) -> None:
        """Store `model` as `version` (semantic, `1.2.3`) of `name`.

        Raises BadModelError for an empty name, an empty model or a version that is none, ModelExistsError when the
        version is there.
        """
        data = model if isinstance(model, bytes) else model.read()
        if not name:
            raise BadModelError(problem="its name is empty")
        if not data:
            raise BadModelError(problem="the model is empty")
        if not _SEMVER.fullmatch(version):
            raise BadModelError(problem=f"{version!r} is no semantic version such as 1.2.3")
        if any(_info(stored, name).version == version for stored in self._versions(name)):
            raise ModelExistsError(name=name, version=version)
        metadata = {
            "Product": self._process.product,
            "Version": self._process.version,
            "Workflow": self._process.workflow,
            "Process": self._process.name,
            "Model_version": version,
            "Model_format": model_format,
            "Model_description": description,
        }
        self._backend.put(self._folder + name, data, None, metadata)

    def get_model(self, name: str, version: str | None = None) -> Model:
        """Return the model registered last, or the given version; ModelNotFoundError when there is none."""
        found = self._versions(name)
        if found and not found[0].latest:
            found = []  # hidden by delete_model
        for stored in found:
            info = _info(stored, name)
            if version in (None, info.version):
                answer = self._backend.get(stored.info.key, stored.info.version)
                if answer is not None:
                    return Model(name, info.version, info.description, info.format, answer[1])
        raise ModelNotFoundError(name=name, version=f" {version}" if version else "")

    def list_models(self) -> list[ModelInfo]:
        """Return the latest version of each model."""
        found = self._backend.versions(self._folder)
        return [_info(stored, stored.info.key.removeprefix(self._folder)) for stored in found if stored.latest]

    def list_model_versions(self, name: str) -> list[ModelInfo]:
        """Return the versions of one model, the last registered first; empty when there is none."""
        return [_info(stored, name) for stored in self._versions(name)]

    def delete_model(self, name: str) -> bool:
        """Hide the model; False when there was none."""
        return self._backend.delete(self._folder + name, None)

    def _versions(self, name: str) -> list[Stored]:
        return [s for s in self._backend.versions(self._folder + name) if s.info.key == self._folder + name]


def _info(stored: Stored, name: str) -> ModelInfo:
    # S3 hands metadata keys back in lower case.
    values = {key.lower(): value for key, value in stored.metadata.items()}
    return ModelInfo(
        name, values.get("model_version", ""), values.get("model_description", ""), values.get("model_format", "")
    )
