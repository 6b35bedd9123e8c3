"""Optical density, stains, ink, and stain normalisation: every patch as if one laboratory and one scanner had made it.

The reference is fixed and published, so that a patch looks the same whenever and beside whatever it is prepared.
Each patch is estimated by itself, and where its estimate cannot be trusted it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", np.ndarray, "Tensor")
Method = Literal["macenko", "vahadane", "reinhard"]
Floats = NDArray[np.float32]

#: Optical densities (red, green, blue) of haematoxylin and eosin, one row each, and the 99th percentile of their
#: concentrations: the reference of Macenko et al. (ISBI 2009), as in the authors' MATLAB code.
REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]], np.float32)
REFERENCE_CONCENTRATIONS = np.array([1.9705, 1.0308], np.float32)
#: Optical densities of hematoxylin, eosin and the residual, one row each: what stain jitter takes colours apart by.
#: Ruifrok and Johnston (2001), "Quantification of histochemical staining by color deconvolution".
RUIFROK = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
#: Mean and standard deviation of tissue in the l, alpha, beta of Reinhard et al. (natural logarithms of [0, 255]):
#: `synthetic:patches?count=200` in the reference above, averaged over its patches.
REFERENCE_LAB = np.array([[8.529, -0.0693, 0.0474], [0.4015, 0.0760, 0.0137]], np.float32)

LIGHT = 240  # grey level of light that passes nothing, as the reference was measured
TISSUE = 0.15  # optical density above which, in every channel, a pixel is tissue (Macenko's beta)
LEAST_TISSUE = 0.05  # share of a patch below which there is too little to estimate stains from
LEAST_ANGLE = 0.10  # radians between two stains; the reference's are 0.39 apart, one stain with noise 0.05
LEAST_STRENGTH = 0.2  # of a stain or of the spread of colours, as a share of the reference's: less is mostly noise

_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]], np.float32)
_TO_LAB = np.array([[3**-0.5] * 3, [6**-0.5, 6**-0.5, -2 * 6**-0.5], [2**-0.5, -(2**-0.5), 0]], np.float32)


def to_density(levels: Values, light: float = 256.0) -> Values:
    """Optical density (natural logarithm) of grey levels, which stand one level away from black so that it is finite.

    Args:
        levels: Array or tensor, range [0, 255].
        light: Grey level, plus one, of light that passes nothing.

    Example:
        >>> to_density(np.array([255.0, 127.0])).round(3).tolist(), from_density(np.log([1.0, 2.0])).round(3).tolist()
        ([-0.0, 0.693], [255.0, 127.0])
    """
    share = (levels + 1) / light
    return -(np.log(share) if isinstance(share, np.ndarray) else share.log())


def from_density(density: Values, light: float = 256.0) -> Values:
    """Grey levels of an optical density, not clipped: the inverse of `to_density`."""
    share = np.exp(-density) if isinstance(density, np.ndarray) else (-density).exp()
    return share * light - 1


_DENSITY = to_density(np.arange(256, dtype=np.float32), LIGHT)


Marked = NDArray[np.bool_]


class Ink(NamedTuple):
    """Where there are pen marks, bool arrays of one shape, by the colour of the pen."""

    green: Marked
    blue: Marked
    black: Marked
    red: Marked
    vivid: Marked


def may_be_ink(rgb: NDArray[np.floating], saturation: NDArray[np.floating], value: NDArray[np.floating]) -> Marked:
    """Where `find_ink` may find any, told without the hue, which takes long: nothing else is ink to it.

    Green and blue pens have more green than red, but for blue ones of the purest colours.

    Args:
        rgb: Shape (3, ...).
        saturation: Of these.
        value: Likewise.

    Example:
        >>> rgb = np.array([[0.6, 0.5], [0.4, 0.6], [0.6, 0.6]])
        >>> may_be_ink(rgb, np.array([0.33, 0.17]), np.array([0.6, 0.6])).tolist()
        [False, True]
    """
    return ((saturation > 0.06) & (rgb[1] >= rgb[0])) | (saturation > 0.7) | (value < 0.35)


def find_ink(hsv: NDArray[np.floating]) -> Ink:
    """Pen marks, inked margins and black areas: colours that no stain has, on slides and patches alike.

    Haematoxylin and eosin, and DAB, have hues of 235 degrees up to 60. Beyond that blue, a pen is told by a saturation
    that haematoxylin does not reach, and red ink, which has the hue of blood, by one that eosin reaches only in single
    pixels: `red` is meant for slides seen from afar, and so is `vivid`, the nearly pure colours of any hue, such as
    drawn bars have. Pale red ink stays.

    Args:
        hsv: float, shape (..., 3): hue, saturation and value in [0, 1], averaged over some micrometres.

    Example:
        >>> find_ink(np.array([[1 / 3, 0.8, 0.7], [0.0, 0.0, 0.1], [0.85, 0.4, 0.7]])).green.tolist()
        [True, False, False]
    """
    hue, saturation, value = hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]
    return Ink(
        green=(hue > 65) & (hue <= 195) & (saturation > 0.06) & (value > 0.1),
        blue=(hue > 195) & (hue < 260) & (saturation > np.where(hue < 235, 0.5, 0.85)) & (value > 0.1),
        # a dark nucleus is not black as long as it has some colour
        black=(saturation * value < np.where(value < 0.2, 0.12, 0.05)) & (value < 0.35),
        red=((hue > 345) | (hue < 15)) & (saturation > 0.7) & (value > 0.45),
        vivid=(saturation > 0.92) & (value > 0.45),
    )


def normalise_stain(images: NDArray[np.uint8], method: Method) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Patches in the stain of the fixed reference, and which of them were changed.

    - "macenko": stains are the extreme angles in the plane of the two main directions of optical density
      (Macenko et al., ISBI 2009).
    - "vahadane": stains by sparse non-negative factorisation of optical density (Vahadane et al., IEEE Trans. Med.
      Imaging 35:1962, 2016).
    - "reinhard": mean and standard deviation of tissue in l-alpha-beta (Reinhard et al., IEEE Comput. Graph. Appl.
      21:34, 2001).

    Glass stays as it is.

    Args:
        images: uint8, shape (N, H, W, 3), RGB; may be memory-mapped.
        method: Which of these.

    Returns:
        uint8 of the same shape, and bool (N,): false where a patch holds less than 5 % tissue, or where two stains
        cannot be told apart in it, and it was left as it was.

    Example:
        >>> glass = np.full((1, 16, 16, 3), 240, np.uint8)
        >>> result, changed = normalise_stain(glass, "macenko")
        >>> bool((result == glass).all()), changed.tolist()
        (True, [False])
    """
    normalise = _METHODS[method]
    result = np.array(images, order="C")

    def one(image: NDArray[np.uint8]) -> bool:
        pixels = np.ascontiguousarray(image.reshape(-1, 3).T)
        density = _DENSITY[pixels]
        tissue = np.all(density > TISSUE, axis=0)
        if tissue.sum() < max(3, LEAST_TISSUE * len(tissue)):
            return False
        normalised = normalise(pixels, density, tissue)
        if normalised is None or not np.isfinite(normalised).all():
            return False
        share = np.clip(2 * density.max(axis=0) / TISSUE - 1, 0, 1)  # from glass to tissue without an edge
        blended = share * normalised + (1 - share) * pixels
        image.reshape(-1, 3)[...] = np.clip(np.rint(blended), 0, 255).T
        return True

    return result, np.fromiter(map(one, result), bool, len(result))


def _macenko(pixels: NDArray[np.uint8], density: Floats, tissue: NDArray[np.bool_]) -> Floats | None:
    return _restained(macenko_stains(density[:, tissue]), density, tissue)


def macenko_stains(density: Floats) -> Floats:
    """Unit optical densities of haematoxylin and eosin, one row each.

    Args:
        density: float32, shape (3, pixels): optical density of tissue.
    """
    mean = density.mean(axis=1, keepdims=True)
    centred = density - mean
    plane = np.linalg.eigh(centred @ centred.T)[1][:, 1:].T
    # The plane is turned to have its mean direction ahead, so that no angle is near the seam at 180 degrees.
    ahead = (plane @ mean).ravel()
    ahead = ahead / np.linalg.norm(ahead)
    plane = np.stack([ahead, np.array([-ahead[1], ahead[0]], np.float32)]) @ plane
    along, across = plane @ density
    angles = np.percentile(np.arctan2(across, along), [1, 99])
    return _haematoxylin_first(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane)


def estimate_stains(image: NDArray[np.uint8], most: int = 4096) -> NDArray[np.float64] | None:
    """Unit optical densities of haematoxylin and eosin of one image by Macenko's method, or None where unsure.

    Args:
        image: uint8, shape (H, W, 3).
        most: Pixels to estimate from, evenly spaced.

    Example:
        >>> estimate_stains(np.full((16, 16, 3), 240, np.uint8)) is None
        True
    """
    pixels = image.reshape(-1, 3)
    density = _DENSITY[pixels[:: max(1, len(pixels) // most)]]
    tissue = density[(density > TISSUE).all(axis=1)]
    if len(tissue) < max(50, LEAST_TISSUE * len(density)):
        return None
    stains = macenko_stains(tissue.T)
    apart = np.arccos(np.clip(stains[0] @ stains[1], -1, 1))
    return np.asarray(stains, dtype=float) if apart >= LEAST_ANGLE and (stains >= 0).all() else None


def _vahadane(pixels: NDArray[np.uint8], density: Floats, tissue: NDArray[np.bool_]) -> Floats | None:
    return _restained(vahadane_stains(density[:, tissue]), density, tissue)


def vahadane_stains(density: Floats, *, sparsity: float = 0.1, sample: int = 1000, rounds: int = 60) -> Floats:
    """Unit optical densities of haematoxylin and eosin, one row each.

    Concentrations and stains are improved in turn (concentrations exactly, stains by block coordinate descent as in
    Mairal et al., J. Mach. Learn. Res. 11:19, 2010), starting from the reference.

    Args:
        density: float32, shape (3, pixels): optical density of tissue.
        sparsity: Weight of the L1 norm of the concentrations.
        sample: Pixels to estimate from, evenly spaced; fewer than twice as many are all taken.
        rounds: Improvements at most; it ends earlier when the stains stand still.
    """
    density = np.ascontiguousarray(density[:, :: max(1, density.shape[1] // sample)])
    stains = REFERENCE / np.linalg.norm(REFERENCE, axis=1, keepdims=True)
    for _ in range(rounds):
        amounts = _concentrations(density, stains, sparsity)
        within, between = amounts @ amounts.T, amounts @ density.T
        before = stains.copy()
        for stain in range(2):
            if within[stain, stain] > 1e-6:
                step = (between[stain] - within[stain] @ stains) / within[stain, stain]
                improved = np.maximum(stains[stain] + step, 0)
                stains[stain] = improved / max(float(np.linalg.norm(improved)), 1e-6)
        if np.abs(stains - before).max() < 2e-4:
            break
    return _haematoxylin_first(stains)


def _concentrations(density: Floats, stains: Floats, sparsity: float) -> Floats:
    """The non-negative c (2, pixels) that minimise |density - stains.T @ c|^2 / 2 + sparsity * |c|, exactly."""
    overlap = stains[0] @ stains[1]
    first, second = stains @ density - np.float32(sparsity)
    share = 1 / max(1 - overlap * overlap, np.float32(1e-6))
    # Where the best amount of one stain is negative, it is none, and the other explains what it can.
    both = (first - overlap * second) * share, (second - overlap * first) * share
    amounts = np.stack([np.where(both[1] < 0, first, both[0]), np.where(both[0] < 0, second, both[1])])
    return np.maximum(amounts, 0, out=amounts)


def _restained(stains: Floats, density: Floats, tissue: NDArray[np.bool_]) -> Floats | None:
    """Grey levels (3, pixels) of the same concentrations in the reference's stains, scaled to its 99th percentile.

    Concentrations are non-negative least squares, else noise comes out bright red. The percentile is that of tissue:
    over the whole patch, the less tissue there is, the more would the rest be darkened.
    """
    if np.arccos(np.clip(stains[0] @ stains[1], -1, 1)) < LEAST_ANGLE:
        return None
    concentrations = _concentrations(density, stains, 0.0)
    strongest = np.percentile(concentrations[:, tissue], 99, axis=1).astype(np.float32)
    if (strongest < LEAST_STRENGTH * REFERENCE_CONCENTRATIONS).any():
        return None
    restained = REFERENCE.T * (REFERENCE_CONCENTRATIONS / strongest)
    return from_density(restained @ concentrations, LIGHT) + 1  # as in the authors' code, which leaves the one out


def _reinhard(pixels: NDArray[np.uint8], density: Floats, tissue: NDArray[np.bool_]) -> Floats | None:
    lab = _TO_LAB @ np.log(_TO_LMS @ np.maximum(pixels, 1))
    stained = lab[:, density.max(axis=0) > TISSUE]  # pale pink too, which lets red through
    mean, deviation = stained.mean(axis=1), stained.std(axis=1)
    if (deviation < LEAST_STRENGTH * REFERENCE_LAB[1]).any():
        return None
    lab = (lab - mean[:, None]) * (REFERENCE_LAB[1] / deviation)[:, None] + REFERENCE_LAB[0][:, None]
    return np.linalg.inv(_TO_LMS) @ np.exp(np.linalg.inv(_TO_LAB) @ lab)


def _haematoxylin_first(stains: NDArray[np.floating]) -> Floats:
    """The two stains with haematoxylin, which absorbs more red, in the first row."""
    return np.asarray(stains if stains[0, 0] > stains[1, 0] else stains[::-1], np.float32)


_METHODS: dict[str, Callable[[NDArray[np.uint8], Floats, NDArray[np.bool_]], Floats | None]] = {
    "macenko": _macenko,
    "vahadane": _vahadane,
    "reinhard": _reinhard,
}
