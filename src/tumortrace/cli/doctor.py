"""The verb `doctor`."""

from __future__ import annotations

import importlib.util

import torch

from tumortrace.cohorts.cache import cache_folder
from tumortrace.models.device import fast_bfloat16, resolve_device, resolve_precision
from tumortrace.records.provenance import machine, versions


def doctor() -> None:
    """Print devices, precision, library versions and the cache folder, a line each."""
    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    print(f"device      {device} ({name}), {torch.get_num_threads()} threads")
    bfloat16 = "yes" if fast_bfloat16(device) else "no"
    print(f"precision   {resolve_precision('auto', device)}; bfloat16 in hardware: {bfloat16}")
    print(f"cache       {cache_folder()}")
    has_slides = importlib.util.find_spec("openslide") is not None
    print(f"slides      {'OpenSlide' if has_slides else 'none: pip install openslide-python openslide-bin'}")
    for library, version in versions().items():
        print(f"{library:18} {version}")
