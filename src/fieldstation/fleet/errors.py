"""What can go wrong in the fleet, in sentences."""

from __future__ import annotations

from fieldstation.core.errors import FieldstationError


class FleetError(FieldstationError):
    """The fleet could not do that."""


class BadRequestError(FleetError):
    """The field {field} is wrong: {problem}."""


class NotEnoughDevicesError(FleetError):
    """{wanted} devices of kind {kind} were asked for and {free} are free{others}.
    Ask for fewer, or wait (wait_for_available=True, --wait)."""


class UnknownKindError(FleetError):
    """No worker offers the kind {kind}; offered are: {known}."""


class UnknownSerialError(FleetError):
    """There is no device {serials} in this fleet; `fieldstation fleet devices` lists them."""


class DeviceBusyError(FleetError):
    """The device {serials} is not available: {reason}."""


class NotHeldError(FleetError):
    """{client} holds no reservation on {serials}. Reserve the device first."""


class LeaseTooLongError(FleetError):
    """Reservations of {user}, who has the role {role}, last at most {most} s at a time; ask for less and extend."""


class LeaseRefusedError(FleetError):
    """The worker refuses this command for {serial}: {reason}. Reserve the device again to use it."""


class NotLeaderError(FleetError):
    """This control does not lead now, but {leader}. Ask that one, or again in a few seconds."""


class WorkerUnreachableError(FleetError):
    """The worker {worker} does not answer; {what} was not done. Try again when it is back."""


class ControlUnreachableError(FleetError):
    """No control server answers at {url}: {problem}. Is it running, and is the address right?"""


class ReservationFailedError(FleetError):
    """The device {serial} was reserved but did not get ready: {reason}."""
