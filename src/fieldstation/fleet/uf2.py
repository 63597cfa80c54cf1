"""UF2, the file a boot loader's disk takes: 512-byte blocks, each with 256 bytes of the image.

Format: https://github.com/microsoft/uf2. The placeholder images carry a text instead of machine code, so that a
simulated board can tell from the file's content which firmware it was given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

BLOCK_BYTES = 512
PAYLOAD_BYTES = 256
MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
FAMILY_PRESENT = 0x2000
RP2350_ARM_S = 0xE48BFF59
FLASH_START = 0x10000000
_HEADER = struct.Struct("<8I")
_MARK = "fieldstation simulated firmware: "


def pack(image: bytes, *, address: int = FLASH_START, family: int = RP2350_ARM_S) -> bytes:
    """Return `image` as the bytes of a UF2 file."""
    pieces = [image[at : at + PAYLOAD_BYTES] for at in range(0, len(image), PAYLOAD_BYTES)] or [b""]
    blocks = []
    for number, piece in enumerate(pieces):
        header = _HEADER.pack(
            MAGIC[0],
            MAGIC[1],
            FAMILY_PRESENT,
            address + number * PAYLOAD_BYTES,
            PAYLOAD_BYTES,
            number,
            len(pieces),
            family,
        )
        blocks.append(header + piece.ljust(476, b"\0") + MAGIC[2].to_bytes(4, "little"))
    return b"".join(blocks)


def blocks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (block number, number of blocks, payload) of every whole, valid block in `data`."""
    for at in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES):
        first, second, _, _, size, number, count, _ = _HEADER.unpack_from(data, at)
        last = int.from_bytes(data[at + 508 : at + 512], "little")
        if (first, second, last) == MAGIC and size <= 476:
            yield number, count, data[at + 32 : at + 32 + size]


def unpack(data: bytes) -> bytes | None:
    """Return the image once all of its blocks are in `data`, None before that (a boot loader waits for the rest)."""
    found, count = {}, None
    for number, total, payload in blocks(data):
        found[number], count = payload, total
    if count is None or len(found) < count:
        return None
    return b"".join(found[number] for number in sorted(found))


def placeholder(name: str) -> bytes:
    """Return a UF2 file that stands for the firmware `name` on a simulated board."""
    return pack((_MARK + name).encode())


def placeholder_name(image: bytes) -> str | None:
    """Return the name in a placeholder's image, or None when this is something else."""
    text = image.rstrip(b"\0").decode(errors="replace")
    return text.removeprefix(_MARK) if text.startswith(_MARK) else None
