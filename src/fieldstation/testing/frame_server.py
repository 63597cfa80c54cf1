"""A run that a test writes frame by frame, and clients of frame servers that a test started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fieldstation.stream.client import AioDaqDataClient
from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.writer import PffWriter
from fieldstation.testing.frames import header, pixels

RUN = "obs_T.start_2026-01-01T00:00:00Z.runtype_sci-data.pffd"


class RunWriter:
    """Writes one module's run; `written` remembers (product, header, pixels) of each frame."""

    def __init__(self, data_dir: Path, module_id: int = 1, run: str = RUN, **options: Any) -> None:
        self.module_id = module_id
        self.pff = PffWriter(data_dir / f"module_{module_id}" / run, module_id, **options)
        self.written: list[tuple[str, dict[str, Any], bytes]] = []

    def write(self, *numbers: int, product: str = "ph256") -> None:
        """Append the test frames of these numbers."""
        for number in numbers:
            head, image = header(product, number), pixels(product, number)
            self.pff.write(PRODUCTS[product], head, image)
            self.written.append((product, head, image))


def config_for(*addresses: str) -> dict[str, Any]:
    """Return a daq_config for servers at host:port."""
    return {"daq_nodes": [{"ip_addr": address} for address in addresses]}


def client_of(*addresses: str, **options: Any) -> AioDaqDataClient:
    """Return an async client of servers at host:port."""
    return AioDaqDataClient(config_for(*addresses), **options)
