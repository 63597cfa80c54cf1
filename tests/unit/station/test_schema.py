"""The config's JSON schema is in the tree and up to date."""

from __future__ import annotations

import json
from pathlib import Path

from fieldstation.station.config import Config

SCHEMA = Path(__file__).parents[3] / "docs/reference/station-config.schema.json"


def test_the_schema_in_the_tree_is_the_codes():
    # fieldstation station config schema > docs/reference/station-config.schema.json
    assert json.loads(SCHEMA.read_text()) == Config.model_json_schema()


def test_the_schema_takes_todays_config_and_refuses_bounds(today):
    schema = Config.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["BackendConfig"]["properties"]["max_parallel_messages"]["maximum"] == 10000
    assert set(today) <= set(schema["properties"])
