"""Where boxes and arrows of a pipeline stand."""

from fieldstation.pipeline.status import ProcessStatus
from fieldstation.web.drawing import draw


def row(name, kind, *hears):
    return ProcessStatus("w", name, kind, "1/1", 2.0, 0, 0, 0, 0, 0, hears)


ROWS = [row("in", "trigger", "out"), row("a", "task", "in"), row("b", "task", "in.raw"), row("out", "exit", "a", "b")]


def test_processes_stand_in_columns_from_triggers_to_exits_and_none_on_another():
    boxes = {box["name"]: box for box in draw(ROWS)["boxes"]}
    assert boxes["in"]["x"] < boxes["a"]["x"] == boxes["b"]["x"] < boxes["out"]["x"]
    assert abs(boxes["a"]["y"] - boxes["b"]["y"]) >= boxes["a"]["height"]


def test_every_subscription_is_an_arrow_with_its_channel_and_the_way_back_is_marked():
    arrows = draw(ROWS)["arrows"]
    assert len(arrows) == 5
    assert [arrow["text"] for arrow in arrows if arrow["text"]] == ["raw"]
    assert sum(arrow["back"] for arrow in arrows) == 1


def test_everything_lies_within_the_picture():
    drawn = draw(ROWS)
    for box in drawn["boxes"]:
        assert 0 <= box["x"] <= box["x"] + box["width"] <= drawn["width"]
        assert 0 <= box["y"] <= box["y"] + box["height"] <= drawn["height"]


def test_an_empty_pipeline_is_an_empty_picture():
    assert draw([])["boxes"] == []


def test_a_source_that_takes_from_outside_has_no_figures_of_what_it_took():
    drawn = {box["name"]: box["hears"] for box in draw([row("in", "trigger"), row("sum", "task", "in")])["boxes"]}
    assert drawn == {"in": False, "sum": True}
