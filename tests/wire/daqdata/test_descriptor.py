"""The wire as the document's tables give it: names, numbers and types of every field, and a frame byte by byte."""

import pytest

from fieldstation.stream.model import Frame, ImageType
from fieldstation.stream.wire.codec import Encoder
from fieldstation.stream.wire.pb import daq_data_pb2 as daq
from fieldstation.stream.wire.pb import ublox_control_pb2 as ublox

FIELDS = {
    "PanoImage": "1 type, 2 header, 3 image_array, 4 shape, 5 bytes_per_pixel, 6 file, 7 frame_number, 8 module_id",
    "StreamImagesResponse": "1 name, 2 timestamp, 3 message, 4 pano_image",
    "StreamImagesRequest": "1 stream_movie_data, 2 stream_pulse_height_data, 3 update_interval_seconds, 4 module_ids",
    "InitHpIoRequest": "1 data_dir, 2 update_interval_seconds, 3 force, 4 simulate_daq, 6 module_ids",
    "InitHpIoResponse": "1 success, 2 error_message",
    "UploadImageRequest": "1 pano_image",
    "StreamHashpipeStatusRequest": "",
    "StreamHashpipeStatusResponse": "",
    "SetConfigurationRequest": "",
    "SetConfigurationResponse": "",
}
UBLOX = {
    "InitF9tRequest": "1 f9t_config, 2 force_init",
    "InitF9tResponse": "1 init_status, 2 message, 3 f9t_config",
    "PollRequest": "1 cfg_key_patterns",
    "PollResponse": "1 parsed_data",
    "CaptureUbloxRequest": "1 patterns",
    "CaptureUbloxResponse": "1 type, 2 name, 3 parsed_data, 4 pkt_unix_timestamp, 5 message, 6 payload",
}


@pytest.mark.parametrize(
    ("module", "name", "fields"),
    [*((daq, *item) for item in FIELDS.items()), *((ublox, *item) for item in UBLOX.items())],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages_have_the_documented_fields(module, name, fields):
    descriptor = module.DESCRIPTOR.message_types_by_name[name]
    assert ", ".join(f"{field.number} {field.name}" for field in descriptor.fields) == fields


def test_the_services_have_the_documented_names():
    assert daq.DESCRIPTOR.name == "daq_data.proto"
    assert daq.DESCRIPTOR.package == "daqdata"
    assert list(daq.DESCRIPTOR.services_by_name["DaqData"].methods_by_name) == [
        "StreamImages", "InitHpIo", "Ping", "UploadImages",
    ]  # fmt: skip
    assert ublox.DESCRIPTOR.services_by_name["UbloxControl"].full_name == "ubloxcontrol.UbloxControl"


def test_a_response_byte_by_byte():
    pixels = b"\x01\x00" + b"\xec\xff" + b"\x80\x00" + bytes(2)  # 1, -20 which travels as 65516, 128, 0
    frame = Frame(ImageType.PULSE_HEIGHT, 3, "ph256", (2, 2), 2, {"quabo_num": 2}, pixels, "f", 1)
    header = b"\x0a\x16" + b"\x0a\x09quabo_num" + b"\x12\x09\x11" + b"\x00" * 6 + b"\x00\x40"
    image = (
        b"\x08\x01" + b"\x12\x18" + header + b"\x1a\x07" + b"\x01\xec\xff\x03\x80\x01\x00"
        b"\x22\x02\x02\x02" + b"\x28\x02" + b"\x32\x01f" + b"\x38\x01" + b"\x40\x03"
    )
    expected = b"\x0a\x01h" + b"\x12\x04\x08\x05\x10\x07" + b"\x22" + bytes([len(image)]) + image
    assert Encoder("h").response(frame, 5_000_000_007) == expected
