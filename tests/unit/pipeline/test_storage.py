import datetime
import io

import pytest

from fieldstation.pipeline import folder as folders
from fieldstation.pipeline.environment import build, process_of
from fieldstation.pipeline.errors import (
    BadKeyError,
    BadModelError,
    ModelExistsError,
    ModelNotFoundError,
    PredictionNotFoundError,
)
from fieldstation.pipeline.folder import FolderBackend
from fieldstation.pipeline.model import Process, ProcessType
from fieldstation.pipeline.optional import services
from fieldstation.pipeline.persistent import PersistentStorage
from fieldstation.pipeline.predictions import Filter, Predictions, TimestampRange
from fieldstation.pipeline.redis_table import search_query
from fieldstation.pipeline.registry import ModelRegistry
from fieldstation.pipeline.sqlite_table import SqliteTable

ME = Process("demo", "v1.0.0", "flow", "mix", ProcessType.TASK, "data")
CONFIG = build(
    {
        "metadata": {"product_id": "demo", "version_tag": "v1.0.0", "workflow_name": "flow", "process_name": "mix"},
        "nats": {"url": "x"},
    }
)


@pytest.fixture
def storage(tmp_path):
    return PersistentStorage(FolderBackend(tmp_path / "objects"), ".kai", ME)


def test_an_object_keeps_its_versions(storage):
    first = storage.save("a/b", io.BytesIO(b"one"))
    second = storage.save("a/b", b"two")
    assert storage.get("a/b").as_bytes() == b"two"
    assert storage.get("a/b", first.version).as_string() == "one"
    assert [info.version for info in storage.list_versions("a/b")] == [second.version, first.version]
    assert [info.key for info in storage.list()] == ["a/b"]


def test_a_deleted_object_is_hidden_and_its_versions_remain_readable(storage):
    info = storage.save("a", b"x")
    assert storage.delete("a")
    assert storage.get("a") is None
    assert storage.list() == []
    assert not storage.delete("a")
    assert storage.get("a", info.version).data == b"x"
    assert storage.delete("a", info.version)
    assert storage.get("a", info.version) is None
    assert not storage.delete("a", "unknown")
    assert storage.get("never") is None


def test_an_expired_object_is_gone(storage, monkeypatch):
    info = storage.save("a", b"x", ttl_days=2)
    assert info.expires > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert storage.get("a").expires == info.expires

    real = datetime.datetime

    class Later(real):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(days=3)

    monkeypatch.setattr(folders.datetime, "datetime", Later)
    assert storage.get("a") is None


@pytest.mark.parametrize("key", ["", ".kai/x", ".kai"])
def test_empty_and_reserved_keys_are_refused(storage, key):
    with pytest.raises(BadKeyError):
        storage.save(key, b"x")
    with pytest.raises(BadKeyError):
        storage.get(key)


def test_a_key_does_not_climb_out_of_its_folder(storage, tmp_path):
    for key in ("../../evil", "/etc/passwd", "..", ".", "a\\b", "ü ?"):
        storage.save(key, key.encode())
        assert storage.get(key).data == key.encode()
    assert {path.name for path in tmp_path.iterdir()} == {"objects"}


def test_a_write_that_was_cut_short_is_not_an_object(storage, tmp_path):
    storage.save("a", b"x")
    [directory] = (tmp_path / "objects").iterdir()
    (directory / "00000000000000000001-cut.new").write_bytes(b"half")
    (directory / "99999999999999999999-cut.json").write_text("{}")
    assert storage.get("a").data == b"x"
    assert len(storage.list_versions("a")) == 1


def test_models_are_versions_below_the_reserved_folder(storage):
    registry = ModelRegistry(storage, ME, CONFIG)
    registry.register_model(io.BytesIO(b"m1"), "net", "1.0.0", "onnx", "first")
    registry.register_model(b"m2", "net", "1.1.0", "onnx")
    assert registry.get_model("net").model == b"m2"
    assert (registry.get_model("net", "1.0.0").description, registry.get_model("net", "1.0.0").model) == (
        "first",
        b"m1",
    )
    assert [info.version for info in registry.list_model_versions("net")] == ["1.1.0", "1.0.0"]
    assert [(info.name, info.version) for info in registry.list_models()] == [("net", "1.1.0")]
    assert storage.list() == []
    assert registry.delete_model("net")
    with pytest.raises(ModelNotFoundError, match="no model net"):
        registry.get_model("net")
    assert not registry.delete_model("net")


@pytest.mark.parametrize(
    ("model", "name", "version", "error"),
    [
        (b"x", "", "1.0.0", BadModelError),
        (b"", "net", "1.0.0", BadModelError),
        (b"x", "net", "1.0", BadModelError),
        (b"x", "net", "0.1.0", ModelExistsError),
    ],
)
def test_bad_models_are_refused(storage, model, name, version, error):
    registry = ModelRegistry(storage, ME, CONFIG)
    registry.register_model(b"x", "net", "0.1.0", "raw")
    with pytest.raises(error):
        registry.register_model(model, name, version, "raw")
    assert len(registry.list_model_versions("net")) == 1


@pytest.fixture
def predictions(tmp_path):
    return Predictions(SqliteTable(tmp_path / "p.sqlite"), ME)


def whole_day(**more):
    now = datetime.datetime.now(datetime.UTC)
    return Filter(TimestampRange(now - datetime.timedelta(hours=12), now + datetime.timedelta(hours=12)), **more)


def test_a_prediction_is_saved_changed_found_and_deleted(predictions):
    predictions.save("a", {"dose": 1})
    before = predictions.get("a")
    predictions.update("a", lambda payload: {**payload, "dose": 2})
    after = predictions.get("a")
    assert after.payload == {"dose": 2}
    assert (after.creation_date, after.metadata) == (before.creation_date, before.metadata)
    assert after.metadata["process"] == "mix"
    assert [found.payload for found in predictions.find(whole_day(process="mix", workflow_type="data"))] == [
        {"dose": 2}
    ]
    assert predictions.find(whole_day(process="other")) == []
    assert predictions.find(whole_day(version="v9.0.0")) == []
    predictions.delete("a")
    for missing in (predictions.get, predictions.delete, lambda name: predictions.update(name, dict)):
        with pytest.raises(PredictionNotFoundError, match="no prediction 'a'"):
            missing("a")


def test_a_change_that_fails_changes_nothing(predictions):
    predictions.save("a", 1)
    with pytest.raises(ZeroDivisionError):
        predictions.update("a", lambda payload: payload / 0)
    assert predictions.get("a").payload == 1


def test_updates_from_many_threads_are_all_counted(predictions):
    from concurrent.futures import ThreadPoolExecutor

    predictions.save("n", 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: predictions.update("n", lambda payload: payload + 1), range(100)))
    assert predictions.get("n").payload == 100


def test_the_search_query_is_the_documented_one():
    query = search_query({"product": "my-demo", "version": "v1.0.0", "request_id": "a-b"}, 5, 9)
    assert query == r"@product:{my\-demo} @creation_date:[5 9] @version:{v1\.0\.0} @request_id:{a\-b}"


def test_services_without_configuration_are_local(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = services(CONFIG, process_of(CONFIG, ProcessType.TASK))
    made.persistent().save("a", b"x")
    made.model_registry().register_model(b"m", "net", "1.0.0", "raw")
    made.predictions().save("p", {"x": 1})
    assert made.measurements().get_metrics_client() is not None
    made_here = {path.name for path in (tmp_path / "fieldstation/pipeline/demo").iterdir()}
    assert made_here >= {"objects", "predictions.sqlite"}
