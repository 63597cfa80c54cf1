"""What can go wrong with a pipeline, one sentence each."""

from __future__ import annotations

from fieldstation.core.errors import FieldstationError


class PipelineError(FieldstationError):
    """The pipeline failed in a way that has no better sentence; the cause is chained below."""


# Starting a node or a pipeline.


class NodeConfigError(PipelineError):
    """The node cannot start: {problem}. Set {key} in app.yaml, config.yaml or the environment ({variable})."""


class NodeConfigFileError(PipelineError):
    """The node's configuration file {path} cannot be used: {problem}."""


class ManifestError(PipelineError):
    """{path} has {count} mistakes:
    {problems}"""


class MissingHandlerError(PipelineError):
    """The {kind} cannot run without {what}; give one with {method}(...) before run()."""


class NoInputsError(PipelineError):
    """The {kind} {process} has no inputs. Give it subscriptions in krt.yaml, or nats.inputs (KAI_NATS_INPUTS)."""


class NodeNotFoundError(PipelineError):
    """{path} offers no node: {problem}."""


# The broker.


class BrokerError(PipelineError):
    """The NATS server at {url} cannot be used: {problem}."""


class NoJetStreamError(BrokerError):
    """The NATS server at {url} runs without JetStream. Start it with `jetstream {{ store_dir: ... }}` (or `-js`)."""


class BrokerRefusedError(BrokerError):
    """The NATS server at {url} refuses our credentials. Check nats.user, nats.password, nats.token or
    nats.credentials."""


class StreamMissingError(BrokerError):
    """There is no stream {stream} on {url}. Start the pipeline first (`fieldstation pipeline up krt.yaml`),
    or correct nats.stream."""


class StreamTakenError(BrokerError):
    """The stream {stream} exists and is not this pipeline's: {difference}. Nothing was changed.
    Choose another product, version or workflow name, or delete that stream."""


class ConsumerTakenError(BrokerError):
    """The consumer {consumer} on stream {stream} does not fit this process: {difference}. Nothing was changed."""


class BucketMissingError(BrokerError):
    """There is no {kind} {bucket}. The pipeline's manager creates it; start that first."""


# Messages.


class MessageError(PipelineError):
    """A message cannot be used: {problem}."""


class UndecodableMessageError(MessageError):
    """error parsing message data coming from subject {subject} because is not a valid protobuf: error creating new
    request message: {detail}"""


class InflatedTooLargeError(MessageError):
    """The compressed message unpacks to more than {limit} bytes and is refused. Raise
    runner.subscriber.max_inflated_bytes if such messages are meant."""


class MessageTooLargeError(MessageError):
    """The message for {subject} has {size} bytes, {packed} compressed, and the server takes {limit}. Send a reference
    instead: save the data with sdk.storage.ephemeral.save(...) and send its key."""


class UnknownPayloadError(MessageError):
    """The payload is a {found}, and the handler takes a {wanted}."""


class WrongReturnError(MessageError):
    """The handler returned a {found}. Return a protobuf message, an Any, or None (nothing is sent then)."""


class PublishError(PipelineError):
    """The message for {subject} was not accepted: {problem}."""


class HandlerTimeoutError(PipelineError):
    """The handler did not finish within {deadline_s} s (runner.subscriber.handler_timeout)."""


class GivenUpError(PipelineError):
    """The message was delivered {deliveries} times and never finished: the process dies while it works on it."""


class RejectedError(PipelineError):
    """The message is of no use and will not be tried again: {reason}"""

    # Raised by a handler to skip the remaining tries: the message goes to the dead letters at once.


class RequestFailedError(PipelineError):
    """The request was answered by an ERROR message: {text}"""


class RequestTimeoutError(PipelineError):
    """No response to request {request_id} came within {timeout_s} s."""


# The process API.


class NoEphemeralStorageError(PipelineError):
    """undefined ephemeral storage: name one with objectStore in krt.yaml (nats.object_store)."""


class ObjectExistsError(PipelineError):
    """The object {key} exists already. Pass overwrite=True to replace it."""


class BadKeyError(PipelineError):
    """{key} cannot be a key: {problem}."""


class StorageError(PipelineError):
    """The storage {what} failed: {problem}."""


class ModelExistsError(PipelineError):
    """The model {name} has a version {version} already. Register a new version, or delete the model first."""


class ModelNotFoundError(PipelineError):
    """There is no model {name}{version}."""


class BadModelError(PipelineError):
    """The model cannot be registered: {problem}."""


class PredictionNotFoundError(PipelineError):
    """There is no prediction {id}."""


# The local manager.


class NoCommandError(PipelineError):
    """There is nothing to run for process {process} on this machine. Put {candidates} beside krt.yaml, or say
    --run {process}=FILE."""


class PipelineRunningError(PipelineError):
    """The pipeline {product} runs already (process {pid}). Stop it with `fieldstation pipeline down`."""


class PipelineNotRunningError(PipelineError):
    """The pipeline {product} does not run on this machine (no state in {state})."""


class UnreadMessagesError(PipelineError):
    """{count} messages of {product} are not processed yet or wait as dead letters; deleting the streams would lose
    them. Nothing was deleted. Say --purge to delete them, or let the pipeline finish first."""


class DeadLetterNotFoundError(PipelineError):
    """There is no dead letter {number} in {stream}."""
