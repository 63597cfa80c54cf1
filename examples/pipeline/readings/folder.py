"""Each line of a file that is moved into the folder is a reading. Stored files go to `done`.

A plain function: it runs in a thread and may block.
"""

import os
import time
from pathlib import Path

from google.protobuf.struct_pb2 import Struct

from fieldstation import pipeline


@pipeline.trigger
def folder(requests, sdk):
    inbox = Path(os.environ.get("READINGS_FOLDER", "inbox"))
    (inbox / "done").mkdir(parents=True, exist_ok=True)
    while True:
        for file in sorted(inbox.glob("*.csv")):
            for number, line in enumerate(file.read_text().splitlines()):
                reading = Struct()
                # The same id when the file is read again after a crash: the table takes each reading once.
                reading.update({"id": f"{file.name}-{number}", "source": "folder", "value": float(line)})
                sdk.wait(sdk.messaging.send_output(reading).confirmed())
            file.rename(inbox / "done" / file.name)
        time.sleep(0.5)
