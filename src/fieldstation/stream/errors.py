"""What can go wrong between a frame on disk and a client, each with what to do."""

from __future__ import annotations

from fieldstation.core.errors import FieldstationError


class StreamError(FieldstationError):
    """The frame stream failed; the cause is chained below."""


class FrameFormatError(StreamError):
    """{where} is not a PFF frame: {problem}."""


class PffNameError(StreamError):
    """{name!r} does not name a PFF product. A name holds `.dp_<product>.` with one of {known}."""


class FrameNumberError(StreamError):
    """{file} has {count} complete frames; there is no frame number {number}."""


class DataDirError(StreamError):
    """The data directory {path!r} {problem}."""


class NoRunError(StreamError):
    """No active observing run: {probe}. Start the run (or its simulation) first, or ask for simulate_daq."""


class IntervalError(StreamError):
    """update_interval_seconds is {value}; it must be a number of seconds, at least {minimum}."""


class ReadersActiveError(StreamError):
    """{count} StreamImages clients are active: {peers}. Set force to end their streams, or try again later."""


class NotInitialisedError(StreamError):
    """The hp_io task is not valid: {problem}. Call InitHpIo first."""


class TooManyReadersError(StreamError):
    """All {limit} reader slots are taken; try again later or raise max_concurrent_rpcs."""


class NoDataClassError(StreamError):
    """stream_movie_data and stream_pulse_height_data are both false; at least one must be true."""


class StreamEndedError(StreamError):
    """The stream was ended by a forced reconfiguration of hp_io."""


class ShutDownError(StreamError):
    """The server is shutting down."""


class SourceFailedError(StreamError):
    """The frame source failed: {problem}."""


class UploadError(StreamError):
    """Uploaded image {index} was refused: {problem}. Images before it were taken."""


class UploadFloodError(StreamError):
    """Uploads name more than {limit} different modules and products; the server keeps no more."""


class SocketTakenError(StreamError):
    """Cannot listen on {address}: {problem}."""


class RequestModeError(StreamError):
    """The request metadata {key} is {value!r}; known are {known}."""


class ClientNotOpenError(StreamError):
    """The client is not open; use it as a context manager: `with DaqDataClient(...) as client`."""


class ReceiverError(StreamError):
    """The receiver at {device} failed: {problem}."""


class ReceiverConfigError(StreamError):
    """The receiver's configuration has a wrong {field}: {problem}."""
