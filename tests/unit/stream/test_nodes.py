import json

import pytest

from fieldstation.stream.nodes import HostSet, as_hosts, nodes

DAQ = {"daq_nodes": [{"ip_addr": "daq1", "data_dir": "/d"}, {"ip_addr": "daq2"}]}


def targets(daq, network=None):
    return {host: node.target for host, node in nodes(daq, network, 50051).items()}


def test_hosts_become_targets():
    assert targets(DAQ) == {"daq1": "daq1:50051", "daq2": "daq2:50051"}
    special = {"daq_nodes": [{"ip_addr": a} for a in ("unix:///run/x.sock", "/run/y.sock", "h:1234", "::1", "[::1]:9")]}
    assert list(targets(special).values()) == [
        "unix:///run/x.sock",
        "unix:/run/y.sock",
        "h:1234",
        "[::1]:50051",
        "[::1]:9",
    ]


def test_a_gateway_that_is_switched_on_replaces_the_host():
    network = {
        "daq_nodes": [
            {"ip_addr": "daq1", "port_forwarding": {"status": True, "gw_ip": "gate", "port": 22}},
            {"ip_addr": "daq2", "port_forwarding": {"status": "yes", "gw_ip": "other"}},
        ]
    }
    assert targets(DAQ, network) == {"gate": "gate:50051", "daq2": "daq2:50051"}


def test_paths_are_read_and_the_callers_dictionary_is_not_changed(tmp_path):
    path = tmp_path / "daq.json"
    path.write_text(json.dumps(DAQ))
    before = json.dumps(DAQ)
    assert targets(path) == targets(str(path)) == targets(DAQ)
    assert json.dumps(DAQ) == before


@pytest.mark.parametrize(
    ("daq", "network", "error", "words"),
    [
        (None, None, ValueError, "path or a dict"),
        (5, None, ValueError, "path or a dict"),
        ("/no/such.json", None, FileNotFoundError, "does not exist"),
        ({}, None, ValueError, "daq_nodes is empty"),
        ({"daq_nodes": []}, None, ValueError, "daq_nodes is empty"),
        ({"daq_nodes": [{}]}, None, ValueError, "does not have an 'ip_addr' key"),
        ({"daq_nodes": ["x"]}, None, ValueError, "does not have an 'ip_addr' key"),
        (DAQ, {"daq_nodes": []}, ValueError, "daq_nodes is empty"),
        (DAQ, {"x": 1}, ValueError, "daq_nodes is empty"),
        (DAQ, {"daq_nodes": [{"ip_addr": "daq1", "port_forwarding": {"status": True}}]}, ValueError, "gw_ip"),
    ],
)
def test_wrong_configurations_raise_as_documented(daq, network, error, words):
    with pytest.raises(error, match=words):
        nodes(daq, network, 50051)


@pytest.mark.parametrize("network", [None, "", {}])
def test_no_network_configuration_is_fine(network):
    assert len(targets(DAQ, network)) == 2


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "daq.json"
    for text in ("{", "[1]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="daq_config file"):
            nodes(path, None, 50051)


def test_valid_hosts_are_a_set_that_can_be_indexed():
    hosts = HostSet(["b", "a", "b"])
    assert hosts == {"a", "b"}
    assert hosts[0] == "b"
    assert list(hosts)[0] == "b"  # noqa: RUF015 - the document's own words
    hosts.discard("b")
    hosts.add("c")
    assert list(hosts) == ["a", "c"]
    assert not HostSet()


@pytest.mark.parametrize("hosts", [None, "", [], set(), ()])
def test_nothing_named_means_all(hosts):
    assert as_hosts(hosts) is None


def test_named_hosts():
    assert as_hosts("a") == ["a"]
    assert as_hosts(["a", "b"]) == ["a", "b"]
    assert as_hosts({"a"}) == ["a"]
    for wrong in (("a",), 5):
        with pytest.raises(ValueError, match="str, list or set"):
            as_hosts(wrong)
