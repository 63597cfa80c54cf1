"""What a device can be made to do. One state object at a time lives on a device; drivers share all of them."""
