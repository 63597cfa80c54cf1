import pytest

from fieldstation.fleet import uf2


@pytest.mark.parametrize("size", [0, 1, 256, 257, 5000])
def test_an_image_comes_out_as_it_went_in(size):
    image = bytes(range(256)) * 20
    found = uf2.unpack(uf2.pack(image[:size]))
    assert found is not None
    assert found[:size] == image[:size]


def test_a_file_is_whole_blocks_with_the_documented_marks():
    packed = uf2.pack(b"x" * 300)
    assert len(packed) == 2 * 512
    assert packed[:8] == b"UF2\n\x57\x51\x5d\x9e"
    assert packed[508:512] == (0x0AB16F30).to_bytes(4, "little")


def test_a_boot_loader_waits_for_the_missing_blocks():
    packed = uf2.pack(b"x" * 1000)
    assert uf2.unpack(packed[:-512]) is None
    assert uf2.unpack(b"") is None
    assert uf2.unpack(b"not a firmware" * 100) is None


def test_blocks_may_come_in_any_order():
    packed = uf2.pack(bytes(range(256)) * 3)
    turned = b"".join(reversed([packed[at : at + 512] for at in range(0, len(packed), 512)]))
    assert uf2.unpack(turned) == uf2.unpack(packed)


def test_a_placeholder_is_known_by_its_content():
    assert uf2.placeholder_name(uf2.unpack(uf2.placeholder("variance"))) == "variance"
    assert uf2.placeholder_name(b"machine code") is None
