"""`python -m fieldstation.pipeline FILE|NAME`: one node, as its manager starts it.

The same as `fieldstation pipeline node`, without loading a command line: which costs a tenth of a node's start.
"""

from __future__ import annotations

import gc
import sys


def _main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m fieldstation.pipeline FILE|NAME")
    # Thousands of objects are made by the imports and none of them dies: looking for garbage among them is in vain.
    gc.disable()
    from fieldstation.core.errors import FieldstationError
    from fieldstation.core.log import mask

    try:
        from fieldstation.pipeline import compose, discover

        gc.freeze()
        gc.enable()
        discover.run(sys.argv[1], compose.main)
    except FieldstationError as error:
        sys.exit(f"fieldstation: {mask(str(error))}")


if __name__ == "__main__":
    _main()
