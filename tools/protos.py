#!/usr/bin/env python3
"""Write the protobuf modules from protos/ anew, or with --check say which ones differ."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# proto -> the capability that speaks it; its modules go to src/fieldstation/<capability>/wire/pb
CAPABILITY = {
    "daq_data.proto": "stream",
    "ublox_control.proto": "stream",
    "kai_nats_msg.proto": "pipeline",
}


def generate(proto: Path, target: Path, capability: str) -> None:
    """Run the pinned compiler; its modules import each other by bare name, which is mended here."""
    # No grpc modules: our servers and clients register their methods by hand, with messages that are encoded once.
    flags = [f"--python_out={target}", f"--pyi_out={target}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", *flags, proto.name]
    subprocess.run(command, check=True)
    for path in target.glob("*.py*"):
        face = f"from fieldstation.{capability}.wire.pb import"
        path.write_text(re.sub(r"^import (\w+_pb2) as", rf"{face} \1 as", path.read_text(), flags=re.MULTILINE))


def main() -> None:
    check = "--check" in sys.argv[1:]
    differ = []
    for proto in sorted((ROOT / "protos").glob("*.proto")):
        capability = CAPABILITY.get(proto.name)
        if capability is None:
            sys.exit(f"tools/protos.py does not know which capability speaks {proto.name}; add it to its table")
        folder = ROOT / "src/fieldstation" / capability / "wire/pb"
        with tempfile.TemporaryDirectory() as temporary:
            generate(proto, Path(temporary), capability)
            for made in sorted(Path(temporary).iterdir()):
                kept = folder / made.name
                if kept.exists() and kept.read_text() == made.read_text():
                    continue
                differ.append(str(kept.relative_to(ROOT)))
                if not check:
                    folder.mkdir(parents=True, exist_ok=True)
                    kept.write_text(made.read_text())
    if differ:
        print("differ from protos/; run `make protos`:" if check else "written:", *differ)
    sys.exit(1 if check and differ else 0)


main()
