#!/usr/bin/env bash
# A tiled TIFF may say by its tag Orientation that it lies on its side or is mirrored. One would guess that OpenSlide either turns the
# whole slide or shows the stored rows as they are. It does neither: each tile is mirrored within itself (what the tag asks of rows and
# columns, without the turn), the tiles stay where they are, and the size stays too, so that the picture comes out as a scrambled mosaic.
# No property tells of the tag.
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

TILE, ROWS, COLUMNS = 128, 2, 4
stored = np.random.default_rng(0).integers(0, 256, (ROWS * TILE, COLUMNS * TILE, 3), dtype=np.uint8)
tiles = stored.reshape(ROWS, TILE, COLUMNS, TILE, 3)
guesses = {
    "stored rows as they are": stored,
    "each tile mirrored left to right": tiles[:, :, :, ::-1].reshape(stored.shape),
    "each tile turned by 180 degrees": tiles[:, ::-1, :, ::-1].reshape(stored.shape),
    "each tile mirrored top to bottom": tiles[:, ::-1].reshape(stored.shape),
}

print("openslide", openslide.__version__, "library", openslide.__library_version__)
seen = []
for orientation in range(1, 9):
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite("slide.tif", stored, tile=(TILE, TILE), photometric="rgb", extratags=tag)
    slide = openslide.OpenSlide("slide.tif")
    region = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    told = [name for name in slide.properties if "orientation" in name.lower()]
    seen.append(next((name for name, guess in guesses.items() if np.array_equal(region, guess)), "something else"))
    print(f"orientation {orientation}: size {slide.dimensions}, {seen[-1]}, properties of it: {told}")
sys.exit(0 if seen == 2 * list(guesses) else 1)
PYTHON
env/bin/python show.py
