"""The prepared stage of preprocessing: its order, its sizes, and that without new steps nothing is new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm.data.constants as timm_constants
import torch
from PIL import Image
from pydantic import ValidationError

from tumortrace.images.preprocessing import NORMALISATIONS, Preprocessing, equalise
from tumortrace.images.stain import normalise_stain
from tumortrace.images.super_resolution import SuperResolution

IMAGES = np.random.default_rng(0).integers(30, 200, (3, 48, 40, 3), dtype=np.uint8)


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2)


def test_nothing_to_prepare_is_nothing_copied(tmp_path: Path) -> None:
    """A memory map comes back as it is, and a crop is a view of it."""
    np.save(tmp_path / "images.npy", IMAGES)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    for steps in (Preprocessing(), Preprocessing(crop=32, size=64, filter="lanczos", normalisation="caffe")):
        assert not steps.prepares
        assert np.shares_memory(steps.prepare(images), images)


def test_steps_are_taken_in_their_order() -> None:
    """Crop, stain, equalisation, super-resolution; then the resize; cropping is not done a second time."""
    steps = Preprocessing(
        crop=32, stain="reinhard", equalisation="clahe", super_resolution=SuperResolution(scale=2), size=48
    )
    by_hand = equalise(normalise_stain(IMAGES[:, 8:40, 4:36], "reinhard")[0], "clahe")
    by_hand = np.stack(
        [np.asarray(Image.fromarray(each).resize((64, 64), Image.Resampling.LANCZOS)) for each in by_hand]
    )
    prepared = steps.prepare(IMAGES)
    assert steps.prepares
    assert np.array_equal(prepared, by_hand)
    plain = Preprocessing(size=48)
    torch.testing.assert_close(steps.pixels(tensor(prepared)), plain.pixels(tensor(by_hand)))


@pytest.mark.parametrize("crop", [None, 24, 44, 64])
@pytest.mark.parametrize("size", [None, 50])
@pytest.mark.parametrize("scale", [None, 2])
def test_sizes_are_as_announced(crop: int | None, size: int | None, scale: int | None) -> None:
    """Of what is prepared and of what the network gets, also where the crop is larger than the patch."""
    enlarge = SuperResolution(scale=scale) if scale else None
    steps = Preprocessing(crop=crop, size=size, super_resolution=enlarge)
    prepared = steps.prepare(IMAGES)
    assert prepared.shape[1:3] == steps.prepared_size((48, 40))
    assert tuple(steps.pixels(tensor(prepared)).shape[2:]) == steps.output_size((48, 40))


def test_each_familys_normalisation() -> None:
    """Keras' caffe mode by hand; timm's constants; values of one's own."""
    pixels = torch.rand(2, 3, 4, 4)
    levels = pixels.flip(1) * 255
    caffe = levels - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    torch.testing.assert_close(Preprocessing(normalisation="caffe").normalise(pixels), caffe, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(Preprocessing(normalisation="inception").normalise(pixels), pixels * 2 - 1)
    for name, ours in (("DEFAULT", "imagenet"), ("INCEPTION", "inception"), ("DPN", "dpn"), ("CLIP", "openai_clip")):
        prefix = "OPENAI_" if name == "CLIP" else "IMAGENET_"
        assert NORMALISATIONS[ours].mean == pytest.approx(getattr(timm_constants, f"{prefix}{name}_MEAN"))
        assert NORMALISATIONS[ours].std == pytest.approx(getattr(timm_constants, f"{prefix}{name}_STD"))
    own = Preprocessing.model_validate({"normalisation": {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.5]}})
    assert own.normalise(torch.full((1, 3, 1, 1), 0.7)).flatten().tolist() == pytest.approx([0, 0.5, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ({"normalisation": "imagnet"}, "normalisation"),
        ({"normalisation": {"mean": [0, 0, 0], "std": [0, 1, 1]}}, "normalisation"),
        ({"stain": "makenko"}, "stain"),
        ({"equalisation": "local"}, "equalisation"),
        ({"filter": "lanczos4"}, "filter"),
        ({"super_resolution": {"scale": 40}}, "super_resolution"),
    ],
)
def test_what_is_not_known_is_refused(steps: dict[str, object], field: str) -> None:
    """The first complaint is about the field at fault."""
    with pytest.raises(ValidationError) as error:
        Preprocessing.model_validate(steps)
    assert error.value.errors()[0]["loc"][0] == field


def test_the_key_follows_the_steps_that_matter() -> None:
    """Other prepared steps, another key; other values of the rest, the same."""
    base = Preprocessing(crop=32, stain="macenko")
    same = [base.model_copy(update={"size": 64}), base.model_copy(update={"normalisation": "caffe"})]
    other = [
        base.model_copy(update={"crop": 48}),
        base.model_copy(update={"stain": "vahadane"}),
        base.model_copy(update={"equalisation": "clahe"}),
        base.model_copy(update={"super_resolution": SuperResolution(scale=2)}),
        base.model_copy(update={"super_resolution": SuperResolution(scale=4)}),
    ]
    assert {each.preparation_key for each in same} == {base.preparation_key}
    assert len({each.preparation_key for each in [base, *other]}) == 6


def test_the_steps_survive_a_file() -> None:
    """What is written into a bundle is read back as the same steps."""
    steps = Preprocessing(crop=32, stain="vahadane", super_resolution=SuperResolution(), normalisation="dpn")
    assert Preprocessing.model_validate_json(steps.model_dump_json()) == steps
    own = Preprocessing.model_validate({"normalisation": {"mean": [0, 0, 0], "std": [1, 1, 1]}})
    assert Preprocessing.model_validate_json(own.model_dump_json()) == own
