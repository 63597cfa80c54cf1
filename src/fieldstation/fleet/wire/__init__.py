"""The iCEFARM wire and our compatible extensions of it; the only fleet modules that name a protocol library."""

from fieldstation.fleet.lean import import_socketio

import_socketio()
