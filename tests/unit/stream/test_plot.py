import matplotlib
import numpy as np
import pytest

from fieldstation.stream.plot import PanoImagePreviewer, PulseHeightDistribution, show, smooth_density
from fieldstation.stream.wire.codec import encode_image
from fieldstation.stream.wire.parse import parse_pano_image
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.testing.frames import frame, name

matplotlib.use("Agg")


def parsed(product, number=0, module_id=1):
    one = frame(product, number, module_id, name(product, module_id))
    return parse_pano_image(pb.PanoImage.FromString(encode_image(one)))


async def stream(images):
    for image in images:
        yield image


def test_each_module_gets_a_row_sorted_by_id():
    previewer = PanoImagePreviewer(True, True, plot_update_interval=0)
    for module_id in (7, 3):
        for product in ("img16", "ph256"):
            assert previewer.update(parsed(product, 1, module_id))
    labels = [ax.get_ylabel() for ax in previewer.figure.axes if ax.get_ylabel().startswith("Module")]
    assert labels == ["Module 3", "Module 7"]
    titles = " ".join(ax.get_title() for ax in previewer.figure.axes)
    assert "Pulse-height Q1  04:34:52.779007 UTC  frame 1" in titles
    assert "2024-07-25T04:34:46Z" in previewer.figure.get_suptitle()


def test_colours_follow_the_quantiles_of_the_last_images_and_survive_a_flat_one():
    previewer = PanoImagePreviewer(True, False, plot_update_interval=0)
    flat = parsed("img16")
    flat["image_array"] = np.full((32, 32), 5, np.uint16)
    previewer.update(flat)
    [picture] = [image for ax in previewer.figure.axes for image in ax.images]
    assert picture.get_clim() == (5.0, 6.0)


def test_modules_and_classes_that_were_not_asked_for_are_passed_over():
    previewer = PanoImagePreviewer(False, True, module_id_whitelist=(2,), plot_update_interval=0)
    assert not previewer.update(parsed("img16", module_id=2))
    assert not previewer.update(parsed("ph256", module_id=1))
    assert previewer.update(parsed("ph256", module_id=2))


def test_it_draws_no_more_often_than_asked():
    previewer = PanoImagePreviewer(True, True, plot_update_interval=1000)
    assert previewer.update(parsed("img16"))
    assert not previewer.update(parsed("img16"))


def test_pulse_heights_are_counted_by_their_brightest_pixel():
    plot = PulseHeightDistribution((10, 60), plot_update_interval=1000)
    assert not plot.update(parsed("img16"))
    for number in range(30):
        plot.update(parsed("ph256", number, 4))
    plot.draw()
    assert len(plot.figure.axes) == 2
    assert plot.figure.axes[0].get_legend().get_texts()[0].get_text() == "module 4 (n=30)"
    assert plot.figure.axes[0].get_xlabel() == "ADC Value"


def test_a_history_is_emptied_when_its_duration_has_passed(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    plot = PulseHeightDistribution((10,), plot_update_interval=0)
    plot.update(parsed("ph256"))
    now += 11
    plot.update(parsed("ph256"))
    assert plot.figure.axes[0].get_legend().get_texts()[0].get_text() == "module 1 (n=1)"


def test_a_density_holds_all_of_its_mass():
    grid, density = smooth_density(list(np.random.default_rng(1).normal(100, 20, 500)))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".gif", b"GIF89a")])
async def test_pictures_are_written_without_a_screen(tmp_path, suffix, magic):
    out = tmp_path / f"view{suffix}"
    images = [parsed("img16", n) for n in range(3)]
    assert await show(PanoImagePreviewer(True, True, plot_update_interval=0), stream(images), out, None)
    assert out.read_bytes().startswith(magic)


async def test_another_kind_of_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"png or \.gif"):
        await show(PanoImagePreviewer(True, True), stream([]), tmp_path / "x.bmp", None)
