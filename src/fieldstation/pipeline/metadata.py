"""`sdk.metadata` and `sdk.path_utils`: who the process is, as its manager named it."""

from __future__ import annotations

import posixpath

from fieldstation.pipeline.config import NodeConfig


class Metadata:
    """Getters over the configuration; each returns "" when the value is not set."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config

    def get_product(self) -> str:
        """Return `metadata.product_id`."""
        return self._config.metadata.product_id

    def get_version(self) -> str:
        """Return `metadata.version_tag`, for example `v1.2.3`."""
        return self._config.metadata.version_tag

    def get_workflow(self) -> str:
        """Return `metadata.workflow_name`."""
        return self._config.metadata.workflow_name

    def get_workflow_type(self) -> str:
        """Return `metadata.workflow_type`: data, training, feedback or serving."""
        return self._config.metadata.workflow_type

    def get_process(self) -> str:
        """Return `metadata.process_name`."""
        return self._config.metadata.process_name

    def get_process_type(self) -> str:
        """Return `metadata.process_type`: trigger, task or exit."""
        return self._config.metadata.process_type

    def get_ephemeral_storage_name(self) -> str:
        """Return the bucket of the ephemeral storage (`nats.object_store`)."""
        return self._config.nats.object_store

    def get_global_centralized_configuration_name(self) -> str:
        """Return the key-value bucket of the global scope."""
        return self._config.centralized_configuration.global_.bucket

    def get_product_centralized_configuration_name(self) -> str:
        """Return the key-value bucket of the product scope (really: of this version)."""
        return self._config.centralized_configuration.product.bucket

    def get_workflow_centralized_configuration_name(self) -> str:
        """Return the key-value bucket of the workflow scope."""
        return self._config.centralized_configuration.workflow.bucket

    def get_process_centralized_configuration_name(self) -> str:
        """Return the key-value bucket of the process scope."""
        return self._config.centralized_configuration.process.bucket


class PathUtils:
    """The historic path helpers, over `metadata.base_path`."""

    def __init__(self, base_path: str) -> None:
        self._base = base_path

    def get_base_path(self) -> str:
        """Return `metadata.base_path`."""
        return self._base

    def compose_path(self, *relative: str) -> str:
        """Return the parts joined below the base path; without parts the base path itself."""
        return posixpath.join(self._base, *relative)
