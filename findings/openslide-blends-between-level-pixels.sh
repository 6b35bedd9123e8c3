#!/usr/bin/env bash
# OpenSlide's read_region takes a corner in pixels of level 0. Where that corner is no whole pixel of the level that is read, the
# region comes back blended from neighbouring pixels instead of cut from the stored ones, so tiles of one level are sharp or soft
# by their place. One would guess that a stored level is read as stored, moved to the nearest pixel at most.
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
quarter = full.reshape(256, 4, 256, 4, 3).mean((1, 3)).astype(np.uint8)
with tifffile.TiffWriter("slide.tif") as file:
    file.write(full, tile=(256, 256), photometric="rgb", subfiletype=0)
    file.write(quarter, tile=(256, 256), photometric="rgb", subfiletype=1)

slide = openslide.OpenSlide("slide.tif")
print("openslide", openslide.__version__, "library", openslide.__library_version__, "downsamples", slide.level_downsamples)
detail = {}
for offset in range(5):
    region = np.asarray(slide.read_region((256 + offset, 256), 1, (64, 64)).convert("RGB"))
    detail[offset] = float(np.abs(np.diff(region.astype(float), axis=1)).mean())
    stored = any(np.array_equal(region, quarter[64:128, left : left + 64]) for left in (64, 65))
    print(f"corner at x = 256 + {offset}: mean step between neighbours {detail[offset]:.1f}, pixels as stored: {stored}")
sys.exit(0 if detail[2] < 0.6 * detail[0] and abs(detail[4] - detail[0]) < 1 else 1)
PYTHON
env/bin/python show.py
