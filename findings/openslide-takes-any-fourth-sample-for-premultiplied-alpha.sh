#!/usr/bin/env bash
# A TIFF may carry a fourth sample of unspecified meaning (ExtraSamples 0: an infrared channel, a mask, padding). OpenSlide's generic
# TIFF reader, and openslide-python behind it, take it for premultiplied alpha and divide the colours by it: values wrap around, and
# where the sample is 0 red and blue come out exchanged. Pillow ignores the sample, as the tag asks for.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 pillow==13.0.0 numpy==2.4.6
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import openslide
import tifffile
from PIL import Image

print("openslide-python", openslide.__version__, "library", openslide.__library_version__)
stored = (180, 90, 150)
read = {}
for fourth in (0, 60, 128, 255):
    pixels = np.empty((512, 512, 4), np.uint8)
    pixels[...] = (*stored, fourth)
    tifffile.imwrite("slide.tif", pixels, tile=(256, 256), photometric="rgb", extrasamples=["unspecified"])
    region = openslide.OpenSlide("slide.tif").read_region((0, 0), 0, (8, 8))
    read[fourth] = tuple(int(value) for value in np.asarray(region.convert("RGB"))[0, 0])
    by_pillow = tuple(int(value) for value in np.asarray(Image.open("slide.tif"))[0, 0, :3])
    print(f"stored RGB {stored}, fourth sample {fourth}: OpenSlide {read[fourth]}, Pillow {by_pillow}")
as_known = read[255] == stored and read[0] == stored[::-1] and stored not in (read[60], read[128])
sys.exit(0 if as_known else 1)
PYTHON
env/bin/python show.py
