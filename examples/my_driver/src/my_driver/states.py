"""What a reserved device does."""

from fieldstation.fleet import AbstractState, reservable

KIND = "example state"


@reservable(KIND, "message")
class ExampleState(AbstractState):
    def __init__(self, device, message):
        super().__init__(device)
        self.message = message

    @AbstractState.register("getdata", "data")
    def receiveData(self, data: str):
        self.device_event_sender.sendDeviceEvent("results", {"data": f"{self.message}, {data}"})

    @AbstractState.register("measure", "file")
    def measureFile(self, file: bytes):
        self.device_event_sender.sendDeviceEvent("measured", {"bytes": len(file)})
