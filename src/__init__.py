import os

# OpenCV reads its limit when it is first imported, and holds a header against it before it takes memory for the pixels: 268
# million are 0.8 GB as RGB. The largest scans that people train on have 100 to 200 million.
PIXELS = 2**28
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PIXELS))
