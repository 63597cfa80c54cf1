import os
import time
from pathlib import Path

from fieldstation import pipeline


@pipeline.task
def slow(sdk, payload):
    Path(os.environ["BEGUN"]).write_text(str(os.getpid()))
    time.sleep(float(os.environ.get("TAKES", "30")))
    return payload
