from fieldstation.testing import serve


def test_the_device_answers_with_its_message():
    with serve("my_driver") as bench:
        device = bench.reserve("example state", message="Hello")
        device.send("getdata", data="world")
        assert device.event("results") == {"data": "Hello, world"}
