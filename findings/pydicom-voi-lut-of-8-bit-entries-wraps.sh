#!/usr/bin/env bash
# pydicom's apply_voi_lut keeps the indices into a VOI LUT in the type of the LUT's entries. A LUT of 4,096 entries of 8 bits, as a
# 12-bit image may carry one, is therefore looked up modulo 256: the picture becomes a sawtooth, without an error or a warning.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut

entries = np.arange(4096) >> 4
lut = Dataset()
lut.LUTDescriptor = [4096, 0, 8]
lut.add_new("LUTData", "US", entries.tolist())
image = Dataset()
image.BitsAllocated, image.BitsStored, image.PixelRepresentation = 16, 12, 0
image.VOILUTSequence = [lut]

values = np.array([0, 100, 255, 256, 300, 1000, 2048, 4095], dtype=np.uint16)
shown = apply_voi_lut(values, image)
print("pydicom", pydicom.__version__)
print("stored values   ", values)
print("LUT says        ", entries[values])
print("apply_voi_lut   ", shown)
print("LUT, index % 256", entries[values % 256])
sys.exit(0 if np.array_equal(shown, entries[values % 256]) and not np.array_equal(shown, entries[values]) else 1)
PYTHON
env/bin/python show.py
