"""`sdk.metadata` and `sdk.path_utils` as documented."""

from __future__ import annotations

from fieldstation.pipeline import environment
from fieldstation.pipeline.metadata import Metadata, PathUtils


def test_each_getter_returns_the_setting_of_its_name():
    config = environment.build(
        {
            "metadata": {
                "product_id": "demo",
                "version_tag": "v1.2.3",
                "workflow_name": "flow",
                "workflow_type": "serving",
                "process_name": "etl",
                "process_type": "task",
            },
            "nats": {"url": "x", "object_store": "files"},
        }
    )
    metadata = Metadata(config)
    assert metadata.get_product() == "demo"
    assert metadata.get_version() == "v1.2.3"
    assert metadata.get_workflow() == "flow"
    assert metadata.get_workflow_type() == "serving"
    assert metadata.get_process() == "etl"
    assert metadata.get_process_type() == "task"
    assert metadata.get_ephemeral_storage_name() == "files"
    assert metadata.get_global_centralized_configuration_name() == "key-store_demo"
    assert metadata.get_product_centralized_configuration_name() == "key-store_demo_v1_2_3"
    assert metadata.get_workflow_centralized_configuration_name() == "key-store_demo_v1_2_3_flow"
    assert metadata.get_process_centralized_configuration_name() == "key-store_demo_v1_2_3_flow_etl"


def test_paths_are_joined_below_the_base():
    paths = PathUtils("/data")
    assert (paths.get_base_path(), paths.compose_path()) == ("/data", "/data")
    assert paths.compose_path("models", "one.bin") == "/data/models/one.bin"
