import pytest

from fieldstation.pipeline import environment
from fieldstation.pipeline.config import NodeConfig, leaves
from fieldstation.pipeline.errors import NodeConfigError, NodeConfigFileError

WHO = {
    "KAI_METADATA_PRODUCT_ID": "demo",
    "KAI_METADATA_VERSION_TAG": "v1.2.3",
    "KAI_METADATA_WORKFLOW_NAME": "flow",
    "KAI_METADATA_PROCESS_NAME": "etl",
    "KAI_NATS_URL": "127.0.0.1:4222",
}


def test_environment_variables_alone_configure_a_node(tmp_path):
    config = environment.read({**WHO, "KAI_NATS_INPUTS": "a.b, a.c"}, tmp_path)
    assert config.nats.inputs == ["a.b", "a.c"]
    assert config.nats.stream == "demo_v1_2_3_flow"
    assert config.nats.output == "demo_v1_2_3_flow.etl"
    assert config.centralized_configuration.global_.bucket == "key-store_demo"
    assert config.centralized_configuration.process.bucket == "key-store_demo_v1_2_3_flow_etl"


def test_a_variable_may_keep_the_dots_of_its_key(tmp_path):
    config = environment.read({**WHO, "KAI_RUNNER.LOGGER.LEVEL": "DEBUG"}, tmp_path)
    assert config.runner.logger.level == "DEBUG"


def test_app_yaml_wins_over_config_yaml_and_the_environment_over_both(tmp_path):
    mounted = tmp_path / "kai"
    mounted.mkdir()
    (tmp_path / "config.yaml").write_text("runner: {logger: {level: WARN, encoding: console}}\nnats: {output: one}\n")
    (mounted / "app.yaml").write_text("nats: {output: two, inputs: [x]}\n")
    config = environment.read({**WHO, "KAI_APP_CONFIG_PATH": str(mounted)}, tmp_path)
    assert (config.nats.output, config.runner.logger.level, config.runner.logger.encoding) == ("two", "WARN", "console")
    config = environment.read({**WHO, "KAI_APP_CONFIG_PATH": str(mounted), "KAI_NATS_OUTPUT": "three"}, tmp_path)
    assert config.nats.output == "three"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(22, 79200.0), ("22", 79200.0), ("22h", 79200.0), (0, 30.0), ("1h30m", 5400.0), (79200 * 10**9, 79200.0)],
)
def test_ack_wait_is_understood_as_both_sdks_write_it(written, seconds, tmp_path):
    config = environment.build(
        {
            "metadata": {"product_id": "p", "version_tag": "v1.0.0", "workflow_name": "w", "process_name": "n"},
            "nats": {"url": "x"},
            "runner": {"subscriber": {"ack_wait_time": written}},
        }
    )
    assert config.runner.subscriber.ack_wait_time == seconds


def test_a_missing_key_is_named_with_its_variable(tmp_path):
    with pytest.raises(NodeConfigError, match=r"nats\.url is missing.*KAI_NATS_URL"):
        environment.read({key: value for key, value in WHO.items() if key != "KAI_NATS_URL"}, tmp_path)


def test_a_wrong_value_is_named_and_secrets_are_not_shown(tmp_path):
    with pytest.raises(NodeConfigError, match=r"runner\.subscriber\.concurrency is wrong") as caught:
        environment.read({**WHO, "KAI_RUNNER_SUBSCRIBER_CONCURRENCY": "0", "KAI_NATS_PASSWORD": "hush"}, tmp_path)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("text", ["nats: [", "- a\n- b\n", "\x00"])
def test_a_broken_file_is_one_sentence_with_its_path(text, tmp_path):
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(NodeConfigFileError, match=r"app\.yaml"):
        environment.read(WHO, tmp_path)


def test_an_unknown_setting_is_told_and_does_no_harm(tmp_path, caplog):
    (tmp_path / "app.yaml").write_text("runner: {subscriber: {conccurency: 3}}\nother: 1\n")
    environment.read(WHO, tmp_path)
    assert "runner.subscriber.conccurency" in caplog.text
    assert "other" in caplog.text


def test_no_optional_service_is_mandatory(tmp_path):
    config = environment.read(WHO, tmp_path)
    assert config.minio.endpoint == config.predictions.endpoint == config.measurements.endpoint == ""


def test_process_values_may_come_as_json_text(tmp_path):
    config = environment.read(
        {**WHO, "KAI_CENTRALIZED_CONFIGURATION_PROCESS_CONFIG": '{"gain": "3", "on": true}'}, tmp_path
    )
    assert config.centralized_configuration.process.config == {"gain": "3", "on": "true"}


def test_every_setting_has_a_description():
    assert [key for key, field in leaves(NodeConfig).items() if not field.description] == []
