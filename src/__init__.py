"""Imported first by every verb. Until its imports are done, which takes a second, Ctrl-C ends it without a traceback."""

import os
import signal
import sys


def _end(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)


_verbs = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # not in a notebook, nor in a test
if os.path.dirname(os.path.abspath(sys.argv[0])) == _verbs and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)

# OpenCV reads its limit when it is first imported, and holds a header against it before it takes memory for the pixels: 268
# million are 0.8 GB as RGB. The largest scans that people train on have 100 to 200 million.
PIXELS = 2**28
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PIXELS))
