"""The table of corruptions and their strengths, and the one function that applies them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tumortrace.errors import DataError
from tumortrace.imaging.corruptions import artefacts, colours, optics, places

PROCEDURE = 2  # raised whenever the same name and strength give other pixels

Change = Callable[[Tensor, float, np.random.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One thing that happens to images.

    Attributes:
        label: What people call it.
        unit: What its amounts are, for an axis.
        amounts: At strength 1, 2 and so on; strength 0 is the image as it is.
        change: From image, amount and draws to the changed image.
        ordered: Whether a higher strength is a stronger change. The symmetries are only different ones.
    """

    label: str
    unit: str
    amounts: tuple[float, ...]
    change: Change
    ordered: bool = True

    @property
    def strengths(self) -> range:
        """1, 2 and so on."""
        return range(1, len(self.amounts) + 1)


#: Every corruption by name, in the order of reports. Amounts in px are pixels of the stored patch.
CORRUPTIONS: dict[str, Corruption] = {
    "stain-pale": Corruption("Pale stain", "factor on density", (0.85, 0.7, 0.55, 0.4, 0.25), colours.stain_strength),
    "stain-dark": Corruption("Dark stain", "factor on density", (1.2, 1.4, 1.7, 2.0, 2.5), colours.stain_strength),
    "stain-balance": Corruption("Stain balance", "share", (0.1, 0.2, 0.35, 0.5, 0.7), colours.stain_balance),
    "stain-hue": Corruption("Stain hue", "degrees", (4.0, 8.0, 14.0, 20.0, 30.0), colours.stain_hue),
    "scanner": Corruption("Scanner colour", "matrix entry", (0.04, 0.08, 0.13, 0.19, 0.26), colours.scanner),
    "darker": Corruption("Less light", "factor", (0.9, 0.8, 0.7, 0.6, 0.5), colours.brightness),
    "brighter": Corruption("More light", "factor", (1.1, 1.2, 1.3, 1.4, 1.5), colours.brightness),
    "contrast": Corruption("Lower contrast", "factor", (0.85, 0.7, 0.55, 0.4, 0.25), colours.contrast),
    "blur": Corruption("Blur", "sigma, px", (0.5, 1.0, 1.5, 2.5, 4.0), optics.blur),
    "defocus": Corruption("Defocus", "radius, px", (1.0, 1.5, 2.2, 3.2, 4.5), optics.defocus),
    "resolution": Corruption("Lower resolution", "factor", (1.5, 2.0, 3.0, 4.0, 6.0), optics.resolution),
    "noise": Corruption("Noise", "deviation, grey levels", (4.0, 8.0, 14.0, 22.0, 32.0), optics.noise),
    "jpeg": Corruption("JPEG", "quality", (80.0, 60.0, 40.0, 20.0, 10.0), optics.jpeg),
    "rotation": Corruption("Rotation", "degrees", (2.0, 5.0, 10.0, 20.0, 40.0), places.rotation),
    "shift": Corruption("Shift", "share of the side", (0.02, 0.04, 0.08, 0.12, 0.16), places.shift),
    "fold": Corruption("Tissue fold", "width, share of the side", (0.04, 0.08, 0.15, 0.25, 0.4), artefacts.fold),
    "bubble": Corruption("Air bubble", "radius, share of the side", (0.06, 0.12, 0.2, 0.3, 0.45), artefacts.bubble),
    "symmetry": Corruption(
        "Turns and mirrorings", "number of the symmetry", (1, 2, 3, 4, 5, 6, 7), places.symmetry, ordered=False
    ),
}


def corrupt(images: np.ndarray, ids: Sequence[str], name: str, strength: int, *, seed: int = 0) -> np.ndarray:
    """Images after one corruption. What becomes of one depends on its id and the seed, not on the others.

    Args:
        images: uint8, shape (N, H, W, 3).
        ids: Name of each image, from which its draws follow.
        name: One of `CORRUPTIONS`.
        strength: 0 (nothing) to the number of its amounts.
        seed: Of all draws.

    Returns:
        uint8, shape (N, H, W, 3); `images` itself at strength 0.

    Raises:
        DataError: There is no such corruption or strength, or a quarter turn does not fit an oblong image.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        >>> changed = corrupt(images, ["a", "b"], "jpeg", 5)
        >>> changed.shape, bool((corrupt(images, ["a", "b"], "jpeg", 0) == images).all())
        ((2, 32, 32, 3), True)
    """
    corruption = find(name)
    if not 0 <= strength <= len(corruption.amounts):
        raise DataError(
            f"strength {strength} of {name}", expected=f"0 to {len(corruption.amounts)}", remedy="choose one of these"
        )
    if strength == 0 or not len(images):
        return images
    amount = corruption.amounts[strength - 1]
    if not fits(name, strength, images.shape[1:3]):
        raise DataError(f"{name} {strength} of oblong images", expected="square ones", remedy="leave it out")
    # one by one: sums over a batch round differently from batch to batch
    changed = [
        corruption.change(_tensor(image), amount, _draws(seed, identity, name))
        for image, identity in zip(images, ids, strict=True)
    ]
    pixels = torch.cat(changed).mul(255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def find(name: str) -> Corruption:
    """The corruption of this name.

    Raises:
        DataError: There is none.
    """
    if name not in CORRUPTIONS:
        raise DataError(f"no corruption {name!r}", expected=", ".join(CORRUPTIONS), remedy="choose one of these")
    return CORRUPTIONS[name]


def fits(name: str, strength: int, size: tuple[int, ...]) -> bool:
    """Whether images of `size` (height, width) keep their shape: oblong ones lose it in odd quarter turns.

    Example:
        >>> fits("symmetry", 1, (96, 96)), fits("symmetry", 1, (96, 64)), fits("symmetry", 2, (96, 64))
        (True, False, True)
    """
    return name != "symmetry" or size[0] == size[1] or int(CORRUPTIONS[name].amounts[strength - 1]) % 2 == 0


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(torch.float32) / 255


def _draws(seed: int, identity: str, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}\n{name}\n{identity}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
