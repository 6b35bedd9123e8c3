"""Images that are parts of a file: bytes within it, cells of a Parquet file; pixels against those that were written."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from tumortrace.cohorts.looks import inspect
from tumortrace.errors import ImageError
from tumortrace.images.decoding import read_image, read_with_facts


def encoded(picture: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    if form == "TIFF16":
        tifffile.imwrite(buffer, picture.astype(np.uint16) * 257, photometric="rgb")
    else:
        Image.fromarray(picture).save(buffer, form)
    return buffer.getvalue()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("rows_a_group", [7, 10_000])
@pytest.mark.parametrize("struct", [True, False])
def test_cells_of_parquet_in_any_order(rows_a_group: int, struct: bool, tmp_path: Path) -> None:
    """From several threads, in groups of 7 rows and in one of all; structs as of Hugging Face, or binary."""
    images = pictures(300)
    cells = [{"bytes": encoded(image), "path": None} if struct else encoded(image) for image in images]
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"label": range(300), "image": cells}), file, row_group_size=rows_a_group)
    order = np.random.default_rng(1).permutation(300).tolist()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda row: read_image(f"{file}::{row}"), order))
    assert np.array_equal(np.stack(read), images[order])


@pytest.mark.parametrize("form", ["PNG", "TIFF16", "TIFF"])
def test_bytes_within_a_file(form: str, tmp_path: Path) -> None:
    """Of every format that a file may have by itself."""
    (image,) = pictures(1)
    content = encoded(image, form)
    file = tmp_path / "shard.tar"
    file.write_bytes(b"before" + content + b"after")
    pixels, facts = read_with_facts(f"{file}::6+{len(content)}")
    assert np.array_equal(pixels, image)
    assert facts.format == form[:4]


def test_what_is_wrong_is_told_of_the_part(tmp_path: Path) -> None:
    """Never of a copy that the user does not know, and the audit goes on."""
    file = tmp_path / "shard.tar"
    file.write_bytes(b"before" + encoded(pictures(1)[0]))
    for part, told in (("0+6", "not an image"), ("6+100000", "ends before"), ("6+100", "damaged")):
        with pytest.raises(ImageError, match=told) as caught:
            read_image(f"{file}::{part}")
        assert f"shard.tar::{part}" in str(caught.value)
    pq.write_table(pa.table({"image": [b"", None, encoded(pictures(1)[0])]}), tmp_path / "a.parquet")
    for row, told in ((0, "empty cell"), (1, "empty cell"), (3, "no row 3")):
        with pytest.raises(ImageError, match=told):
            read_image(f"{tmp_path}/a.parquet::{row}")
    table, _ = inspect([f"{file}::0+6", f"{tmp_path}/a.parquet::2", f"{tmp_path}/none.parquet::2"])
    assert table["problem"].fillna("").tolist() == ["unreadable", "", "missing"]


def test_a_wrong_checksum_within_a_part_is_seen(tmp_path: Path) -> None:
    """As of a PNG that is a file by itself."""
    content = bytearray(encoded(pictures(1)[0]))
    content[29] ^= 1  # checksum of the header
    (tmp_path / "shard.tar").write_bytes(b"before" + content)
    table, _ = inspect([f"{tmp_path}/shard.tar::6+{len(content)}"])
    assert table["problem"].tolist() == ["unreadable"]


def test_the_array_of_images_is_found_by_name_or_shape(tmp_path: Path) -> None:
    """Beside coordinates, as CLAM writes both."""
    images = pictures(3)
    for name in ("imgs", "x", "patches"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["coords"] = np.zeros((3, 2), np.int32)
            file[name] = images
        assert np.array_equal(read_image(f"{tmp_path}/{name}.h5::2"), images[2])
