"""A plain loop of torch over files with a network of timm: what one writes without TumorTrace.

python torch_loop.py FOLDER OUT.csv [NETWORK]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

SIZE, BATCH = 64, 64


class Files(Dataset[torch.Tensor]):
    """Files, each decoded when it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        image = np.array(Image.open(self.files[row]).convert("RGB").resize((SIZE, SIZE)))
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def main(folder: str, out: str, name: str = "resnet50") -> None:
    files = sorted(Path(folder).glob("*/*.tif"))
    model = timm.create_model(name, num_classes=1).eval()
    with torch.inference_mode():
        logits = torch.cat([model(batch)[:, 0] for batch in DataLoader(Files(files), BATCH)])
    rows = (f"{file.stem},{value:.6f}" for file, value in zip(files, logits.sigmoid().tolist(), strict=True))
    Path(out).write_text("\n".join(["id,probability", *rows]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
