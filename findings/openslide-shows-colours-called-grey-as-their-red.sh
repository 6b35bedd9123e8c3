#!/usr/bin/env bash
# A tiled TIFF whose photometric interpretation is "min is black" and whose pixels have three samples holds colours that were labelled
# wrongly, or one grey sample and two of another kind. OpenSlide opens it as a slide and returns grey made of the first sample alone;
# Pillow refuses the same file. One would guess that OpenSlide refuses it too, or shows the three samples.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import openslide
import PIL
import tifffile
from PIL import Image

stain = np.zeros((256, 256, 3), np.uint8)
stain[...] = (200, 60, 140)
tifffile.imwrite("slide.tif", stain, photometric="minisblack", planarconfig="contig", tile=(64, 64))
slide = openslide.OpenSlide("slide.tif")
seen = slide.read_region((0, 0), 0, (1, 1)).getpixel((0, 0))
print("openslide", openslide.__version__, "library", openslide.__library_version__, "Pillow", PIL.__version__)
print("stored", (200, 60, 140), "OpenSlide shows", seen)
try:
    Image.open("slide.tif").load()
    refused = False
except Exception as error:
    refused = True
    print("Pillow refuses it:", type(error).__name__)
sys.exit(0 if seen[:3] == (200, 200, 200) and refused else 1)
PYTHON
env/bin/python show.py
