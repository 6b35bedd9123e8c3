#!/usr/bin/env bash
# Since 13.0 Pillow shrinks a picture that is more than twice as high as wide downwards first and then across; all others, and all
# pictures in versions before, across first. Each pass rounds to 8 bits and cuts off what overshoots, so that the same px come out up
# to a dozen grey levels apart: between two versions, and in one version between a region and a shorter piece of it, though no output
# px shown here looks at the rows by which they differ. Mammograms, strips of slides and columns of tiles are such pictures.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

noise = np.random.default_rng(0).integers(0, 256, (400, 100, 3), np.uint8)


def halved(height):
    region = Image.fromarray(noise[:height])
    return np.asarray(region.resize((50, height // 2), Image.Resampling.LANCZOS), np.int16)


changes = {}
for height in (150, 200, 204, 300, 400):  # of 100 px across
    changes[height] = int(abs(halved(height)[:60] - halved(140)[:60]).max())
print("Pillow", PIL.__version__, "first 60 rows, against those of a region of 140 px:", changes)
differing = [height for height, change in changes.items() if change > 4]
sys.exit(0 if differing == ([204, 300, 400] if sys.argv[1] == "differ" else []) else 1)
PYTHON
for version in 12.1.0 13.0.0; do
  python3 -m venv "$version"
  "$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version" numpy==2.4.6
done
12.1.0/bin/python show.py agree
13.0.0/bin/python show.py differ
