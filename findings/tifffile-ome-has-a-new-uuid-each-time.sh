#!/usr/bin/env bash
# tifffile writes a UUID into the header of every OME-TIFF, though no part of the image asks for one: the same pixels, metadata and
# options give other bytes each time, so that digests of heat maps, masks and converted slides never agree, and a result that was
# computed again looks changed. It is of version 1, that is the time and the hardware address of the machine, which then travel with
# images that were made anonymous. A plain TIFF of the same call is the same to the last byte; metadata={"UUID": ...} makes an OME one so.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
cat > show.py <<'PYTHON'
import hashlib
import re
import sys
import uuid

import numpy as np
import tifffile

heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


def written(**options):
    tifffile.imwrite("heat.tif", heat, datetime=False, software=False, **options)
    return hashlib.sha256(open("heat.tif", "rb").read()).hexdigest()[:12]


print("tifffile", tifffile.__version__)
plain = [written(metadata=None) for _ in range(2)]
ome = [written(ome=True, metadata={"axes": "YX", "PhysicalSizeX": 8.0}) for _ in range(2)]
(named,) = re.findall(r'UUID="(urn:uuid:[^"]*)"', tifffile.TiffFile("heat.tif").ome_metadata)
version = uuid.UUID(named).version
fixed = [written(ome=True, metadata={"axes": "YX", "UUID": "urn:uuid:00000000-0000-0000-0000-000000000000"}) for _ in range(2)]
print("plain, twice:", *plain)
print("OME, twice:", *ome, "with a UUID of version", version)
print("OME with a UUID of ours, twice:", *fixed)
sys.exit(0 if plain[0] == plain[1] and ome[0] != ome[1] and fixed[0] == fixed[1] and version == 1 else 1)
PYTHON
env/bin/python show.py
