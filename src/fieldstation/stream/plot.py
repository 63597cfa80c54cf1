"""Live plots of parsed frames: a previewer of all modules, and the distribution of pulse heights.

Both take the documented dictionary in `update`. They draw in a window, in a notebook, or headless into a file.
"""

from __future__ import annotations

import datetime as dt
import io
import textwrap
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fieldstation.core.plugins import require
from fieldstation.stream.pff import file_start

_CLASSES = ("PULSE_HEIGHT", "MOVIE")
_TITLES = {"PULSE_HEIGHT": "Pulse-height", "MOVIE": "Movie"}


def _pyplot() -> Any:
    return require("matplotlib.pyplot", extra="plots", feature="Plotting")


class Plot(Protocol):
    """What `show` drives."""

    figure: Any

    def update(self, parsed: Mapping[str, Any]) -> bool: ...  # noqa: D102 - a protocol: the name says it
    def draw(self) -> None: ...  # noqa: D102 - a protocol: the name says it


class _Paced:
    """Draws at most once per interval; tells when it did."""

    def __init__(self, interval_s: float, jupyter_notebook: bool) -> None:
        self._interval_s = interval_s
        self._jupyter = jupyter_notebook
        self._handle: Any = None
        self._last = -np.inf
        self.figure: Any = None

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def _drawn(self) -> None:
        self._last = time.monotonic()
        if self._jupyter:
            display = require("IPython.display", extra="plots", feature="Plotting in a notebook")
            # As a picture: what a notebook makes of a figure object depends on its matplotlib back end.
            png = io.BytesIO()
            self.figure.savefig(png, format="png", dpi=90)
            picture = display.Image(png.getvalue())
            if self._handle is None:
                self._handle = display.display(picture, display_id=True)
            else:
                self._handle.update(picture)
        else:
            self.figure.canvas.draw_idle()


class PanoImagePreviewer(_Paced):
    """One row per module seen: pulse-height left, movie right. Arguments as documented; times in seconds."""

    def __init__(
        self,
        stream_movie_data: bool,
        stream_pulse_height_data: bool,
        module_id_whitelist: Sequence[int] = (),
        text_width: int = 30,
        font_size: int = 8,
        row_height: float = 3,
        window_size: int = 10,
        plot_update_interval: float = 1.0,
        jupyter_notebook: bool = False,
    ) -> None:
        super().__init__(plot_update_interval, jupyter_notebook)
        wanted = {"MOVIE": stream_movie_data, "PULSE_HEIGHT": stream_pulse_height_data}
        self._classes = [name for name in _CLASSES if wanted[name]]
        self._whitelist = tuple(module_id_whitelist)
        self._text_width = text_width
        self._font_size = font_size
        self._row_height = row_height
        self._limits: dict[str, deque[tuple[float, float]]] = {name: deque(maxlen=window_size) for name in _CLASSES}
        self._latest: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._panels: dict[tuple[int, str], Any] = {}
        self._modules: list[int] = []

    def update(self, parsed: Mapping[str, Any]) -> bool:
        """Take one parsed image; returns whether the figure was drawn again."""
        kind, module_id = parsed["type"], parsed["module_id"]
        if kind not in self._classes or (self._whitelist and module_id not in self._whitelist):
            return False
        image = parsed["image_array"]
        self._limits[kind].append((float(image.min()), float(image.max())))
        self._latest[module_id, kind] = parsed
        if module_id not in self._modules:
            self._modules = sorted([*self._modules, module_id])
            self._build()
        if not self._due():
            return False
        self.draw()
        return True

    def _build(self) -> None:
        plt = _pyplot()
        rows, columns = len(self._modules), len(self._classes)
        size = (3.6 * columns + 0.6, self._row_height * rows + 0.8)
        if self.figure is None:
            self.figure = plt.figure(figsize=size, layout="constrained")
        else:
            self.figure.clear()
            self.figure.set_size_inches(*size, forward=True)
        axes = self.figure.subplots(rows, columns, squeeze=False)
        self._panels = {}
        for row, module_id in enumerate(self._modules):
            for column, kind in enumerate(self._classes):
                ax = axes[row][column]
                ax.set_xticks([])
                ax.set_yticks([])
                ax.set_title(f"{_TITLES[kind]}: nothing yet", fontsize=self._font_size)
                if column == 0:
                    ax.set_ylabel(f"Module {module_id}", fontsize=self._font_size + 1)
                picture = ax.imshow(np.zeros((32, 32)), cmap="plasma", interpolation="nearest")
                bar = self.figure.colorbar(picture, ax=ax, shrink=0.85)
                bar.set_label("ADC", fontsize=self._font_size)
                bar.ax.tick_params(labelsize=self._font_size)
                self._panels[module_id, kind] = picture

    def draw(self) -> None:
        """Draw what was taken so far, whatever the interval."""
        for key, parsed in self._latest.items():
            picture = self._panels[key]
            low, high = self._range(key[1])
            if picture.get_clim() != (low, high):
                picture.set_clim(low, high)
            image = parsed["image_array"]
            picture.set_data(image)
            picture.set_extent((-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5))
            picture.axes.set_title(self._title(parsed), fontsize=self._font_size)
        start = next((s for p in self._latest.values() if (s := file_start(p["file"]))), None)
        modules = ", ".join(map(str, self._whitelist or self._modules))
        shown = "filtered" if self._whitelist else "all"
        begin = start or dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.figure.suptitle(f"Start: {begin}   modules ({shown}): {modules}", fontsize=self._font_size + 2)
        self._drawn()

    def _range(self, kind: str) -> tuple[float, float]:
        lows, highs = zip(*self._limits[kind], strict=True)
        low, high = float(np.quantile(lows, 0.05)), float(np.quantile(highs, 0.95))
        return low, high if high > low else high + 1

    def _title(self, parsed: Mapping[str, Any]) -> str:
        header = parsed["header"]
        quabo = f" Q{int(header['quabo_num'])}" if "quabo_num" in header else ""
        moment = header["pandas_unix_timestamp"].strftime("%H:%M:%S.%f")
        first = f"{_TITLES[parsed['type']]}{quabo}  {moment} UTC  frame {parsed['frame_number']}"
        return "\n".join([first, *textwrap.wrap(parsed["file"].replace(".", " ."), self._text_width)])


class PulseHeightDistribution(_Paced):
    """The brightest pixel of each pulse-height image, as a histogram per duration; emptied when that has passed."""

    def __init__(
        self,
        durations_seconds: Sequence[float] = (10, 60, 600),
        module_ids: Sequence[int] = (),
        plot_update_interval: float = 1.0,
        jupyter_notebook: bool = False,
    ) -> None:
        super().__init__(plot_update_interval, jupyter_notebook)
        self._durations = list(durations_seconds)
        self._modules = tuple(module_ids)
        self._history: list[dict[int, list[float]]] = [{} for _ in self._durations]
        self._emptied = [time.time() for _ in self._durations]

    def update(self, parsed: Mapping[str, Any]) -> bool:
        """Take one parsed image (movie images are passed over); returns whether the figure was drawn again."""
        if parsed["type"] != "PULSE_HEIGHT" or (self._modules and parsed["module_id"] not in self._modules):
            return False
        highest = float(parsed["image_array"].max())
        now = time.time()
        for index, duration in enumerate(self._durations):
            if now - self._emptied[index] >= duration:
                self._history[index].clear()
                self._emptied[index] = now
            self._history[index].setdefault(parsed["module_id"], []).append(highest)
        if not self._due():
            return False
        self.draw()
        return True

    def draw(self) -> None:
        """Draw what was taken so far, whatever the interval."""
        plt = _pyplot()
        if self.figure is None:
            self.figure = plt.figure(figsize=(4.6 * len(self._durations), 4), layout="constrained")
        self.figure.clear()
        axes = self.figure.subplots(1, len(self._durations), squeeze=False)[0]
        for ax, duration, emptied, history in zip(axes, self._durations, self._emptied, self._history, strict=True):
            since = dt.datetime.fromtimestamp(emptied, dt.UTC).strftime("%H:%M:%S")
            ax.set_title(f"Last {duration:g} s (since {since} UTC)", fontsize=10)
            ax.set_xlabel("ADC Value")
            ax.set_ylabel("Density")
            for index, (module_id, values) in enumerate(sorted(history.items())):
                colour = f"C{index % 10}"
                label = f"module {module_id} (n={len(values)})"
                ax.hist(values, bins=75, density=True, histtype="step", color=colour, alpha=0.5)
                grid, density = smooth_density(values)
                ax.plot(grid, density, color=colour, label=label)
            if history:
                ax.legend(fontsize=8)
        self._drawn()


def smooth_density(values: Sequence[float]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a grid and the Gaussian kernel density of values on it (Scott's bandwidth)."""
    data = np.asarray(values[-5000:], float)
    width = max(float(data.std()) * len(data) ** -0.2, 1.0)
    grid = np.linspace(data.min() - 3 * width, data.max() + 3 * width, 200)
    kernel = np.exp(-0.5 * ((grid[:, None] - data) / width) ** 2)
    return grid, kernel.sum(1) / (len(data) * width * np.sqrt(2 * np.pi))


async def show(plot: Plot, images: AsyncIterator[Mapping[str, Any]], out: Path | None, limit: int | None) -> bool:
    """Feed a plot from a stream, into a window or `out` (.png: the last picture, .gif: one per drawing)."""
    plt = _pyplot()
    if out is None:
        plt.ion()
    else:
        plt.switch_backend("Agg")
        if out.suffix not in (".png", ".gif"):
            raise ValueError(f"--out must end in .png or .gif, not {out.suffix!r}")
    pictures: list[Any] = []
    count = 0
    try:
        async for parsed in images:
            count += 1
            if plot.update(parsed):
                _present(plot, out, pictures)
            if limit is not None and count >= limit:
                break
            if out is None and plot.figure is not None and not plt.fignum_exists(plot.figure.number):
                break  # the window was closed
    finally:
        if count and out is not None:
            plot.draw()  # the last frames, too
            _present(plot, out, pictures)
        if pictures and out is not None:
            pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=300, loop=0)
    return count > 0


def _present(plot: Plot, out: Path | None, pictures: list[Any]) -> None:
    if out is None:
        _pyplot().pause(0.001)
    elif out.suffix == ".png":
        plot.figure.savefig(out, dpi=110)
    else:
        plot.figure.canvas.draw()
        image = require("PIL.Image", extra="plots", feature="Writing a GIF")
        # A copy: the canvas draws the next picture into the same memory.
        pictures.append(image.fromarray(np.asarray(plot.figure.canvas.buffer_rgba()).copy()).convert("P"))
