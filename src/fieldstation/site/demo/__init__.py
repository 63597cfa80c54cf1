"""The demonstration: a whole site with simulated hardware on one machine, and an experiment that is checked."""

from fieldstation.fleet.lean import import_socketio

import_socketio()  # before the fleet's client does
