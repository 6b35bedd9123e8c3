"""Images that do not fit into memory are read from the disk as they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tumortrace.training.task import Patches, epoch_order

STATUS = Path("/proc/self/status")


def held() -> int:
    """Bytes of memory that no file backs, which the system cannot take back."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) << 10


@pytest.mark.skipif(not STATUS.exists() or "RssAnon" not in STATUS.read_text(), reason="asks Linux for memory")
def test_an_epoch_holds_no_more_than_its_batches(tmp_path: Path) -> None:
    """Of 240 MB every image is learnt from, in random order; a tenth of that is not exceeded."""
    file = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(8000, 100, 100, 3))
    file[:, 0, 0, 0] = np.arange(8000) % 251
    file.flush()
    images = np.memmap(tmp_path / "images", np.uint8, "r", shape=file.shape)
    del file
    patches = Patches(images, np.arange(8000), (np.arange(8000) % 2).astype(np.float32))
    order, before, most, seen = epoch_order(patches.kinds, False, (0, 0)), held(), 0, 0
    for rows in np.array_split(order, 125):
        batch = patches.tensor(rows, torch.device("cpu"))
        seen += int(batch[:, 0, 0, 0].sum())
        most = max(most, held() - before)
    assert seen == (np.arange(8000) % 251).sum()
    assert most < images.nbytes / 10
