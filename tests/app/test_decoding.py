"""Uploads become the very pixels that `predict` reads, whatever they are."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tumortrace.app.decoding import Decoded, Decoder
from tumortrace.app.settings import Limits
from tumortrace.app.slide_reader import SlideReader
from tumortrace.errors import ImageError
from tumortrace.images.decoding import fit, read_image

SIZE = (96, 80)


def decode(contents: list[bytes], size: tuple[int, int] = SIZE) -> list[np.ndarray | BaseException]:
    """All at once, by two processes."""

    async def main() -> list[np.ndarray | BaseException]:
        decoder = Decoder(Limits(decoders=2))
        await decoder.start()
        waiting = (decoder.decode(io.BytesIO(content), size) for content in contents)
        try:
            done = await asyncio.gather(*waiting, return_exceptions=True)
            return [each.pixels if isinstance(each, Decoded) else each for each in done]
        finally:
            await decoder.stop()

    return asyncio.run(main())


def files(folder: Path) -> list[Path]:
    """Pictures of several kinds and sizes, none of which is its own mirror image."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(noise).save(folder / "fits.png")
    Image.fromarray(noise[:50, :31]).save(folder / "small.tif")
    Image.fromarray(noise).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(np.dstack([noise, noise[..., :1]])).save(folder / "clear.png")
    return sorted(folder.iterdir())


def test_pixels_are_those_of_predict_bit_for_bit(tmp_path: Path) -> None:
    """Each upload gets its own pixels, as `read_image` and `fit` make them of the file."""
    paths = files(tmp_path) * 3
    for path, found in zip(paths, decode([path.read_bytes() for path in paths]), strict=True):
        assert isinstance(found, np.ndarray), found
        assert np.array_equal(found, fit(read_image(path), SIZE)), path


def test_real_pixels_are_those_of_predict_bit_for_bit(real_data: Path) -> None:
    """Kaggle's TIFFs, JPEGs of PCam, PNGs at slide edges, MRI slices."""
    folders = ("kaggle/test", "pcam/valid/0", "idc/0", "mri/images")
    paths = [path for folder in folders for path in sorted((real_data / folder).glob("*.*"))[:5]]
    for path, found in zip(paths, decode([path.read_bytes() for path in paths]), strict=True):
        assert isinstance(found, np.ndarray), found
        assert np.array_equal(found, fit(read_image(path), SIZE)), path


def test_bad_ones_among_good_ones_are_refused_alone(tmp_path: Path) -> None:
    """Answers are not mixed up."""
    good = files(tmp_path)[0]
    contents = [good.read_bytes() if number % 2 else b"bad" for number in range(10)]
    found = decode(contents)
    assert all(isinstance(each, ImageError) for each in found[::2])
    for each in found[1::2]:
        assert isinstance(each, np.ndarray)
        assert np.array_equal(each, fit(read_image(good), SIZE))


def test_who_gives_up_does_not_leave_the_answer_to_the_next(tmp_path: Path) -> None:
    """A caller that is cancelled while its image is decoded: the next one gets its own pixels."""
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.new("RGB", (4000, 4000), "red").save(large)
    Image.new("RGB", (80, 96), "blue").save(small)

    async def main() -> np.ndarray:
        decoder = Decoder(Limits(decoders=1))
        await decoder.start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(decoder.decode(io.BytesIO(large.read_bytes()), SIZE), 0.05)
        found = (await decoder.decode(io.BytesIO(small.read_bytes()), SIZE)).pixels
        await decoder.stop()
        return found

    assert np.array_equal(asyncio.run(main()), read_image(small))


def test_what_lies_in_the_folder_of_the_start_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file there that is named as a module of the standard library does not get into the processes."""
    for name in ("json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    Image.new("RGB", (20, 20), "purple").save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    (found,) = decode([(tmp_path / "a.png").read_bytes()])
    assert isinstance(found, np.ndarray), found
    with SlideReader(seconds=60) as reader:
        assert reader.facts(tmp_path / "a.png", "a.png")["width"] == 20
