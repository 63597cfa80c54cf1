"""Camera frames, live: sources, a hub, the DaqData gRPC service, clients, plots."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "stream",
    {
        "AioDaqDataClient": "fieldstation.stream.client",
        "AioUbloxControlClient": "fieldstation.stream.ublox_client",
        "DaqDataClient": "fieldstation.stream.blocking",
        "Frame": "fieldstation.stream.model",
        "PanoImagePreviewer": "fieldstation.stream.plot",
        "PffFile": "fieldstation.stream.files",
        "PulseHeightDistribution": "fieldstation.stream.plot",
        "UbloxControlClient": "fieldstation.stream.ublox_client",
        "parse_pano_image": "fieldstation.stream.wire.parse",
    },
)
