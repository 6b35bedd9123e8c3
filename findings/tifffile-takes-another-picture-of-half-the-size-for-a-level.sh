#!/usr/bin/env bash
# A TIFF may hold several pictures. tifffile's generic series takes a later one of half the size for a level of a pyramid of the first,
# though it is not flagged as reduced (NewSubfileType 0) and shows something else: whoever reads "level 1" of a slide to find its tissue gets a
# control image, a map of labels or the next slide. OpenSlide goes by the flag, so that the two disagree on how many levels a file has.
# Of another ratio the same page is a series of its own.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check tifffile==2026.3.3 numpy==2.4.6 openslide-python==1.4.3 openslide-bin==4.0.0.13
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import openslide
import tifffile

slide = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
print("tifffile", tifffile.__version__, "OpenSlide", openslide.__library_version__)
seen = {}
for side in (512, 500):
    for reduced in (0, 1):
        other = np.full((side, side, 3), (255, 0, 0), np.uint8)  # all red
        with tifffile.TiffWriter("two.tif") as file:
            for picture, flag in ((slide, 0), (other, reduced)):
                file.write(picture, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=flag)
        with tifffile.TiffFile("two.tif") as file, openslide.OpenSlide("two.tif") as opened:
            seen[side, reduced] = len(file.series[0].levels), opened.level_count
            print(f"second page {side} px, flagged reduced: {bool(reduced)}; levels by tifffile and OpenSlide:", *seen[side, reduced])
            if (side, reduced) == (512, 0):
                print("  px of tifffile's level 1:", file.series[0].levels[1].asarray()[0, 0].tolist())
sys.exit(0 if seen[512, 0] == (2, 1) and seen[500, 0] == (1, 1) and seen[512, 1] == (2, 2) else 1)
PYTHON
env/bin/python show.py
