"""A simulated Hashpipe: frames written as the real acquisition software writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fieldstation.stream.config import SimulationConfig
from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.sim.cameras import Cameras, archives_of
from fieldstation.stream.writer import PffWriter


@dataclass(slots=True)
class SimulatedHashpipe:
    """Writes runs of several modules. `step` writes one frame of each product of each module."""

    data_dir: Path
    modules: tuple[int, ...] = (224,)
    products: tuple[str, ...] = ("img16", "ph256")
    max_bytes: int = 0
    run_template: str = "module_{module_id}/obs_SIMULATE"
    archives: Mapping[str, Path] = field(default_factory=dict)  # product -> recorded file, instead of generated frames
    keep_files: int | None = None  # delete all but so many of the newest files of a product
    _writers: dict[int, PffWriter] = field(default_factory=dict)
    _cameras: Cameras | None = None

    def open(self) -> None:
        """Begin the run."""
        self._cameras = Cameras(self.modules, self.products, self.archives)
        for module_id in self.modules:
            folder = self.data_dir / self.run_template.format(module_id=module_id)
            self._writers[module_id] = PffWriter(folder, module_id, max_bytes=self.max_bytes)

    def step(self) -> int:
        """Write one frame of each; returns how many."""
        assert self._cameras is not None
        count = 0
        for module_id, product, header, pixels in self._cameras.frames():
            self._writers[module_id].write(product, header, pixels)
            count += 1
        return count

    def writer(self, module_id: int) -> PffWriter:
        """Return a module's writer, to damage its files on purpose."""
        return self._writers[module_id]

    def prune(self) -> None:
        """Delete old files, so that a simulation that runs for weeks fills no disk."""
        if self.keep_files is None:
            return
        for writer in self._writers.values():
            for name in PRODUCTS:
                mine = [path for path in writer.opened if f".dp_{name}." in path.name]
                for path in mine[: -self.keep_files]:
                    path.unlink(missing_ok=True)
                    writer.opened.remove(path)

    def close(self) -> None:
        """End the run."""
        for writer in self._writers.values():
            writer.close()

    def remove(self) -> None:
        """Delete what this run wrote, and nothing else."""
        for writer in self._writers.values():
            for path in writer.opened:
                path.unlink(missing_ok=True)


def simulated_hashpipe(root: Path, config: SimulationConfig) -> SimulatedHashpipe:
    """Return the writer that a configuration describes; roll-over after `frames_per_pff` movie frames."""
    strategy = config.strategies.get(config.simulation_mode, {})
    product = PRODUCTS[config.movie_type]
    return SimulatedHashpipe(
        root,
        tuple(config.sim_module_ids),
        (config.movie_type, config.ph_type),
        max_bytes=int(strategy.get("frames_per_pff", 100)) * (product.image_bytes + 492),
        run_template=config.filesystem_cfg.sim_run_dir_template,
        archives=archives_of(config),
        keep_files=3,
    )
