#!/usr/bin/env bash
# OpenSlide's generic reader of tiled TIFF takes a page as the whole slide. Where the first page is a thumbnail that says so
# (NewSubfileType 1, reduced resolution) and the full picture follows unflagged, the full picture is in no level: the slide opens
# with the size of the largest flagged page. One would guess that the unflagged page, the only one that is no reduced copy, is level 0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import openslide
import tifffile

full = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
pages = {"thumbnail": (full[::8, ::8], 1), "full": (full, 0), "half": (full[::2, ::2], 1)}


def opened(name, order):
    with tifffile.TiffWriter(name) as file:
        for page in order:
            pixels, flag = pages[page]
            file.write(np.ascontiguousarray(pixels), tile=(64, 64), photometric="rgb", subfiletype=flag)
    slide = openslide.OpenSlide(name)
    print(f"{', '.join(order)}: dimensions {slide.dimensions}, {slide.level_count} levels")
    return slide.dimensions


print("openslide", openslide.__version__, "library", openslide.__library_version__)
usual = opened("usual.tif", ["full", "half", "thumbnail"])
turned = opened("turned.tif", ["thumbnail", "full", "half"])
sys.exit(0 if usual == (1024, 1024) and turned == (512, 512) else 1)
PYTHON
env/bin/python show.py
