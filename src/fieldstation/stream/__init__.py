"""Camera frames, live: sources, a hub, the DaqData gRPC service, clients, plots."""

from fieldstation.core.plugins import lazy_names

__all__ = [
    "AioDaqDataClient",
    "DaqDataClient",
    "Frame",
    "PanoImagePreviewer",
    "PulseHeightDistribution",
    "parse_pano_image",
]

_names = {
    "AioDaqDataClient": "fieldstation.stream.client",
    "DaqDataClient": "fieldstation.stream.blocking",
    "Frame": "fieldstation.stream.model",
    "parse_pano_image": "fieldstation.stream.wire.parse",
}
_plots = {
    "PanoImagePreviewer": "fieldstation.stream.plot",
    "PulseHeightDistribution": "fieldstation.stream.plot",
}
_of_stream = lazy_names(__name__, "stream", _names)
_of_plots = lazy_names(__name__, "stream,plots", _plots)


def __getattr__(name: str) -> object:
    return _of_plots(name) if name in _plots else _of_stream(name)
