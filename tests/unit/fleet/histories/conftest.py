from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# Imported by path: tests are no package.
for _name in ("box_parts", "fleet_in_a_box"):
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])
