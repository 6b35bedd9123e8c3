"""The table of corruptions and their strengths, and the one function that applies them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tumortrace.errors import DataError
from tumortrace.images import colour, geometry, resampling
from tumortrace.images.resampling import resize
from tumortrace.images.stain import from_density, to_density

# Stain and scanner: what changes the colours of every pixel and moves none.
#
# Images are float32, shape (1, 3, H, W), range [0, 1]; `random` has drawn nothing yet,
# and gives the same at every strength of one image, so that a stronger change goes further the same way.


def stain_strength(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Multiply the optical density of all stains: below 1 pale, above 1 dark staining or a thick section."""
    density = torch.full((1, 3), factor)
    return colour.change_stains(image, density, torch.zeros(1, 3))


def stain_balance(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """More of one stain and less of the other, by `share` each; which of the two is drawn."""
    sign = _sign(random)
    factor = torch.tensor([[1 + sign * share, 1 - sign * share, 1.0]])
    return colour.change_stains(image, factor, torch.zeros(1, 3))


def stain_hue(image: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    """Turn optical densities around the axis of grey, to either side: other hues at the same total density."""
    angle = math.radians(degrees) * _sign(random)
    # Rodrigues' formula around (1, 1, 1) / sqrt(3)
    equal, cross = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    kept = math.cos(angle) + equal
    turn = [
        [kept, equal - cross, equal + cross],
        [equal + cross, kept, equal - cross],
        [equal - cross, equal + cross, kept],
    ]
    return _changed_density(torch.einsum("nchw,dc->ndhw", to_density(image * 255), image.new_tensor(turn)))


def scanner(image: Tensor, amount: float, random: np.random.Generator) -> Tensor:
    """Another scanner's colours: a drawn matrix that mixes the channels and keeps grey, and a drawn gamma.

    Entries beside the diagonal are drawn from U(-amount, amount), the diagonal makes each row sum to 1, and gamma is
    exp(U(-2 amount, 2 amount)).
    """
    mixed = random.uniform(-amount, amount, (3, 3))
    np.fill_diagonal(mixed, 0)
    matrix = mixed + np.diag(1 - mixed.sum(1))
    gamma = math.exp(2 * random.uniform(-amount, amount))
    return torch.einsum("nchw,dc->ndhw", image, image.new_tensor(matrix)).clamp(0, 1) ** gamma


def brightness(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Multiply the pixels: a lamp too weak or too strong."""
    return colour.change_brightness(image, torch.tensor([factor]))


def contrast(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Multiply each pixel's distance from the image's mean grey."""
    return colour.change_contrast(image, torch.tensor([factor]))


def _changed_density(density: Tensor) -> Tensor:
    return (from_density(density) / 255).clamp(0, 1)


def _sign(random: np.random.Generator) -> float:
    return 1.0 if random.random() < 0.5 else -1.0


# Lens, sensor and file: blur, focus, resolution, level, noise, JPEG.


BLOCK = 16  # side of what JPEG with 4:2:0 compresses together, px


def blur(image: Tensor, sigma: float, random: np.random.Generator) -> Tensor:
    """Gaussian blur of `sigma` pixels; the border is repeated outwards."""
    return resampling.blur(image, torch.tensor([sigma]))


def defocus(image: Tensor, radius: float, random: np.random.Generator) -> Tensor:
    """What a lens out of focus does: each point becomes a disk of `radius` pixels."""
    kernel = image.new_tensor(disk(radius))
    margin = kernel.shape[0] // 2
    channels = image.shape[1]
    padded = functional.pad(image, (margin,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels).clamp(0, 1)


def disk(radius: float, samples: int = 9) -> np.ndarray:
    """Weights of a disk of `radius` pixels around a pixel's centre, float64; each is the share that the disk covers.

    Args:
        radius: In pixels, above 0.
        samples: Points to a pixel's side at which it is looked whether the disk covers them.

    Example:
        >>> disk(0.4).round(3).tolist()
        [[1.0]]
        >>> disk(1.0).shape, round(float(disk(1.0).sum()), 6)
        ((3, 3), 1.0)
    """
    reach = max(0, math.ceil(radius - 0.5))
    steps = ((np.arange((2 * reach + 1) * samples) + 0.5) / samples) - reach - 0.5
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float64)
    covered = inside.reshape(2 * reach + 1, samples, 2 * reach + 1, samples).sum((1, 3))
    return covered / covered.sum()


def resolution(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Shrunk by `factor` and enlarged again, as by an objective of lower power; both steps bilinear."""
    height, width = image.shape[2:]
    small = resize(image, (max(1, round(height / factor)), max(1, round(width / factor))))
    return resize(small, (height, width))


FINE = 4  # px of the stand-in for full resolution along one px of the patch
_RIM = 8  # px of the patch repeated around it, beyond which Lanczos does not look


def read_level(image: Tensor, size: float, random: np.random.Generator) -> Tensor:
    """Read from a level of a slide whose px are `size` px of the patch, on a grid at a drawn place.

    As scanners make it, a px of the level is the mean of the px of full resolution in it, for which the patch enlarged
    fourfold stands; as `scan` reads it, the level is resampled by Lanczos to the patch's px, with the exact box. Below
    1 the level is finer than the tiles, which `scan` prefers; at 2 it is coarser, and the tiles are enlarged.
    """
    height, width = image.shape[2:]
    pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    around = Image.fromarray(np.pad(pixels, ((_RIM, _RIM), (_RIM, _RIM), (0, 0)), "edge"))
    fine = around.resize((around.width * FINE, around.height * FINE), Image.Resampling.LANCZOS)
    step = round(size * FINE)
    left, top = (int(place * step) for place in random.random(2))
    columns, rows = (fine.width - left) // step, (fine.height - top) // step
    grid = (left, top, left + columns * step, top + rows * step)
    level = fine.resize((columns, rows), Image.Resampling.BOX, grid)
    near = (_RIM * FINE - left) / step, (_RIM * FINE - top) / step
    box = (*near, near[0] + width * FINE / step, near[1] + height * FINE / step)
    tile = np.array(level.resize((width, height), Image.Resampling.LANCZOS, box))
    return torch.from_numpy(tile).permute(2, 0, 1)[None].to(image.dtype) / 255


def noise(image: Tensor, deviation: float, random: np.random.Generator) -> Tensor:
    """Gaussian noise of `deviation` grey levels, drawn for each pixel and channel."""
    drawn = torch.from_numpy(random.standard_normal(image.shape, dtype=np.float32))
    return (image + drawn * (deviation / 255)).clamp(0, 1)


def jpeg(image: Tensor, quality: float, random: np.random.Generator) -> Tensor:
    """Compressed as JPEG of `quality`, with Pillow's default chroma subsampling, its grid of blocks at a drawn place.

    On the very grid of a patch that was a JPEG before, a coefficient of one step of the former table is rounded to a
    whole step of the new one or to none: from quality 75 to 60 that sharpens, and does more harm than 40 does.
    """
    height, width = image.shape[2:]
    top, left = (int(place) for place in random.integers(0, BLOCK, 2))
    around = (left, -(left + width) % BLOCK, top, -(top + height) % BLOCK)
    padded = functional.pad(image, around, mode="replicate")
    return resampling.jpeg(padded, torch.tensor([int(quality)]))[:, :, top : top + height, left : left + width]


# Folds and air bubbles, drawn into the patch.
#
# Both pass near the centre, within a sixth of the side, where the label of a patch is usually decided.


NEAR = 1 / 6  # of the side: how far from the centre a fold's line or a bubble's centre may lie
EDGE = 1.5  # pixels over which a fold or bubble begins


def fold(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """A band of `share` of the side in which tissue lies upon itself, at a drawn angle.

    Light passes through two layers there, so that optical densities add: the pixel's own and that of its mirror image
    across the band's middle line. The band's edges, where the section bends, are darker by a half.
    """
    side = min(image.shape[2:])
    angle, offset = random.uniform(0, math.pi), random.uniform(-NEAR, NEAR) * side
    across, (x, y) = math.cos(angle), _centred(image)
    along = math.sin(angle)
    distance = x * across + y * along - offset
    other = _sampled(image, x - 2 * distance * across, y - 2 * distance * along)
    half = share * side / 2
    inside = ((half - distance.abs()) / EDGE + 0.5).clamp(0, 1)
    edge = torch.exp(-(((distance.abs() - half) / EDGE) ** 2)) * inside
    density = to_density(image * 255)
    return _changed_density(density + inside * to_density(other * 255) + 0.5 * edge * density)


def bubble(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """An air bubble under the cover glass, its radius `share` of the side: hazy and blurred within a dark rim."""
    side = min(image.shape[2:])
    right, down = random.uniform(-NEAR, NEAR, 2) * side
    x, y = _centred(image)
    distance = torch.hypot(x - right, y - down)
    radius = share * side
    inside = ((radius - distance) / EDGE + 0.5).clamp(0, 1)
    haze = 0.5 * resampling.blur(image, torch.tensor([2.0])) + 0.5 * 0.93
    width = max(1.0, 0.12 * radius)
    rim = torch.exp(-(((distance - radius + width) / width) ** 2)) * inside
    return (image + inside * (haze - image)) * (1 - 0.75 * rim)


def _centred(image: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's place in pixels right of and below the image's centre, shape (H, W) each."""
    height, width = image.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return x, y


def _sampled(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The image at these places, bilinear, mirrored beyond its border."""
    height, width = image.shape[2:]
    grid = torch.stack([2 * x / width, 2 * y / height], -1)[None].to(image.dtype)
    return functional.grid_sample(image, grid, "bilinear", "reflection", align_corners=False)


# Where the pixels lie: rotation, symmetries of the square, shift of the centre.
#


_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def rotation(image: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    """Turned around the centre by `degrees`, to a drawn side; bilinear, the corners filled with the mirror image."""
    angle = torch.tensor([degrees if random.random() < 0.5 else -degrees])
    zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    height, width = image.shape[2:]
    matrix = geometry.affine_matrix((height, width), angle, zero, zero[:, 0], one)
    return geometry.affine(image, matrix, "reflect")


def symmetry(image: Tensor, index: float, random: np.random.Generator) -> Tensor:
    """One of the eight symmetries of the square, by its number in `geometry.symmetry`."""
    return geometry.symmetry(image, int(index))


def shift(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Moved by `share` of the side, in whole pixels, one of eight drawn ways; the gap takes the mirror image."""
    down, right = _DIRECTIONS[random.integers(8)]
    height, width = image.shape[2:]
    rows, columns = down * round(share * height), right * round(share * width)
    margin = max(abs(rows), abs(columns))
    padded = functional.pad(image, (margin,) * 4, mode="reflect")
    top, left = margin - rows, margin - columns
    return padded[:, :, top : top + height, left : left + width]


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
        of_site: Whether what is drawn belongs to a laboratory, so that all its images would share it.
    """

    label: str
    unit: str
    amounts: tuple[float, ...]
    change: Change
    ordered: bool = True
    of_site: bool = False

    @property
    def strengths(self) -> range:
        """1, 2 and so on."""
        return range(1, len(self.amounts) + 1)


#: Every corruption by name, in the order of reports. Amounts in px are pixels of the stored patch.
CORRUPTIONS: dict[str, Corruption] = {
    "stain-pale": Corruption("Pale stain", "factor on density", (0.85, 0.7, 0.55, 0.4, 0.25), stain_strength),
    "stain-dark": Corruption("Dark stain", "factor on density", (1.2, 1.4, 1.7, 2.0, 2.5), stain_strength),
    "stain-balance": Corruption("Stain balance", "share", (0.1, 0.2, 0.35, 0.5, 0.7), stain_balance, of_site=True),
    "stain-hue": Corruption("Stain hue", "degrees", (4.0, 8.0, 14.0, 20.0, 30.0), stain_hue, of_site=True),
    "scanner": Corruption("Scanner colour", "matrix entry", (0.04, 0.08, 0.13, 0.19, 0.26), scanner, of_site=True),
    "darker": Corruption("Less light", "factor", (0.9, 0.8, 0.7, 0.6, 0.5), brightness),
    "brighter": Corruption("More light", "factor", (1.1, 1.2, 1.3, 1.4, 1.5), brightness),
    "contrast": Corruption("Lower contrast", "factor", (0.85, 0.7, 0.55, 0.4, 0.25), contrast),
    "blur": Corruption("Blur", "sigma, px", (0.5, 1.0, 1.5, 2.5, 4.0), blur),
    "defocus": Corruption("Defocus", "radius, px", (1.0, 1.5, 2.2, 3.2, 4.5), defocus),
    "resolution": Corruption("Lower resolution", "factor", (1.5, 2.0, 3.0, 4.0, 6.0), resolution),
    "read-level": Corruption("Read from a level", "its px, in px of the patch", (0.5, 1.0, 2.0), read_level),
    "noise": Corruption("Noise", "deviation, grey levels", (4.0, 8.0, 14.0, 22.0, 32.0), noise),
    "jpeg": Corruption("JPEG", "quality", (80.0, 60.0, 40.0, 20.0, 10.0), jpeg),
    "rotation": Corruption("Rotation", "degrees", (2.0, 5.0, 10.0, 20.0, 40.0), rotation),
    "shift": Corruption("Shift", "share of the side", (0.02, 0.04, 0.08, 0.12, 0.16), shift),
    "fold": Corruption("Tissue fold", "width, share of the side", (0.04, 0.08, 0.15, 0.25, 0.4), fold),
    "bubble": Corruption("Air bubble", "radius, share of the side", (0.06, 0.12, 0.2, 0.3, 0.45), bubble),
    "symmetry": Corruption(
        "Turns and mirrorings", "number of the symmetry", (1, 2, 3, 4, 5, 6, 7), symmetry, ordered=False
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
