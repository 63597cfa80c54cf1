from fieldstation.pipeline import names
from fieldstation.pipeline.names import WorkflowNames

DEMO = WorkflowNames("demo", "v1.2.3", "flow")


def test_stream_and_subjects_are_those_of_the_document():
    assert DEMO.stream == "demo_v1_2_3_flow"
    assert DEMO.output("etl") == "demo_v1_2_3_flow.etl"
    assert DEMO.output("etl", "alarms") == "demo_v1_2_3_flow.etl.alarms"
    assert DEMO.input("etl.alarms") == "demo_v1_2_3_flow.etl.alarms"
    assert DEMO.subjects(["etl"]) == ["demo_v1_2_3_flow.etl", "demo_v1_2_3_flow.etl.*"]


def test_durable_joins_subject_and_process_with_dashes():
    assert names.durable("demo_v1_2_3_flow.etl", "exitpoint") == "demo_v1_2_3_flow-etl-exitpoint"
    assert names.durable("s.etl.alarms", "my exit.x") == "s-etl-alarms-my-exit-x"


def test_buckets_of_every_scope_are_those_of_the_document():
    assert names.bucket("demo") == "key-store_demo"
    assert names.bucket("demo", "v1.2.3") == "key-store_demo_v1_2_3"
    assert names.bucket("demo", "v1.2.3", "flow") == "key-store_demo_v1_2_3_flow"
    assert names.bucket("demo", "v1.2.3", "flow", "etl") == "key-store_demo_v1_2_3_flow_etl"


def test_object_store_scope_product_and_its_alias_project_share_a_bucket():
    assert DEMO.object_store("emails", "workflow") == "demo_v1_2_3_flow_emails"
    assert DEMO.object_store("emails", "product") == "demo_v1_2_3_emails"
    assert DEMO.object_store("emails", "project") == "demo_v1_2_3_emails"


def test_message_id_differs_in_every_part_that_makes_an_output_another_one():
    base = ("etl", "c", 1, 2, "", 0, 0)
    others = [("x", "c", 1, 2, "", 0, 0), ("etl", "d", 1, 2, "", 0, 0), ("etl", "c", 9, 2, "", 0, 0)]
    others += [("etl", "c", 1, 3, "", 0, 0), ("etl", "c", 1, 2, "a", 0, 0), ("etl", "c", 1, 2, "", 1, 0)]
    others += [("etl", "c", 1, 2, "", 0, 1)]
    ids = {names.message_id(*parts) for parts in [base, *others]}
    assert len(ids) == 8
    assert names.message_id(*base) == names.message_id(*base)
