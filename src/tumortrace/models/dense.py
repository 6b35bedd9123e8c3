"""A network that passes over a whole region at once, where what it makes of a spot does not depend on a patch's border.

Without padding, the maps of a patch are a window of the region's maps. What follows (pooling of any kind, attention,
head, likeness to training images) takes that window as it would take the patch's maps, so nothing of it has to slide.
Sermanet et al. (2014), "OverFeat: integrated recognition, localization and detection using convolutional networks".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.images.geometry import symmetry
from tumortrace.models.architecture import Network
from tumortrace.models.layers import features_of
from tumortrace.models.ood import likeness_features
from tumortrace.models.runtimes import Outputs

if TYPE_CHECKING:
    from tumortrace.models.bundle import Assessment, Model
    from tumortrace.models.description import ModelInfo

_AT_ONCE = 64  # windows that are pooled together
_EACH_PX = (nn.ReLU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity)


def stride_of(model: Model) -> int:
    """By how many px patches may lie apart so that one pass serves them all.

    Raises:
        ModelError: What the model says of a patch depends on more than its pixels in place; the reason is named.
    """
    steps, name = model.info.preprocessing, model.info.name
    side = steps.crop or max(model.info.patch_size)
    if steps.stain != "none":
        raise _refused(name, f"stain normalisation ({steps.stain}) looks at each patch as a whole")
    if steps.equalisation != "none":
        raise _refused(name, f"equalisation ({steps.equalisation}) looks at each patch as a whole")
    if steps.super_resolution is not None or (steps.size or side) != side or steps.frame not in (None, side):
        raise _refused(name, f"patches are resized from {side} px by themselves")
    if model.runtime is not None or type(model.network).maps is not Network.maps:
        raise _refused(name, "its network is not one body of layers, one after the other")
    return _stride(model.network.body, "body", name)


def _stride(layer: nn.Module, place: str, name: str) -> int:
    """Product of the strides of layers, none of which may see a border."""
    if isinstance(layer, nn.Sequential):
        return prod(_stride(part, f"{place}.{key}", name) for key, part in layer.named_children())
    if isinstance(layer, _EACH_PX):
        return 1
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        raise _refused(name, f"layer {place} ({type(layer).__name__}) may look at the whole patch or pad it")
    padded = layer.padding != "valid" and _pair(layer.padding) != (0, 0)
    if padded or getattr(layer, "ceil_mode", False):
        raise _refused(name, f"layer {place} ({type(layer).__name__}) pads a patch at its border")
    down, across = _pair(layer.stride)
    if down != across:
        raise _refused(name, f"layer {place} ({type(layer).__name__}) has strides of {down} and {across} px")
    return down


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)


def _refused(name: str, reason: str) -> ModelError:
    return ModelError(
        f"no model for --dense: {reason}",
        where=name,
        expected="convolutions and pooling without padding alone, as of model plain-cnn (recipe cnn-96)",
        remedy="leave out --dense",
    )


def assess_places(model: Model, region: np.ndarray, places: np.ndarray) -> Assessment:
    """What a model says of the patches at some places of a region, from one pass of its body over the region.

    Args:
        model: That `stride_of` does not refuse.
        region: uint8, shape (H, W, 3); as large as the patches that lie furthest right and down need.
        places: Upper left corners, int (N, 2): row and column in px, multiples of the stride.

    Returns:
        The same as `model.assess` of the patches, but for the order in which float32 numbers are added up.
    """
    with model.computing():
        parts = list(_parts(model, region, places, stride_of(model)))
    return model.judge(Outputs(*(np.concatenate(values) for values in zip(*parts, strict=True))))


def _parts(model: Model, region: np.ndarray, places: np.ndarray, stride: int) -> Iterator[Outputs]:
    """Outputs of places, some at a time, averaged over the views of the region."""
    info, body = model.info, model.network.body
    pixels, size = _pixels(info, region, model.device), info.preprocessing.output_size(info.patch_size)
    scored = model.detector is not None and info.ood is not None
    shape = features_of(body, size)[2:]
    # the grid of all places is turned as the picture is
    grid = torch.arange(prod(_places(pixels, size, stride))).view(1, 1, *_places(pixels, size, stride))
    wanted = torch.from_numpy(places[:, 0] // stride * grid.shape[3] + places[:, 1] // stride)
    views = []
    for index in info.views.indices:
        picture = symmetry(pixels, index).contiguous(memory_format=torch.channels_last)
        turned = symmetry(grid, index)
        at = turned.flatten().argsort()[wanted]
        views.append((picture, body(picture), at // turned.shape[3], at % turned.shape[3]))
    for start in range(0, len(places), _AT_ONCE):
        some, sums = slice(start, start + _AT_ONCE), []
        for picture, maps, rows, columns in views:
            windows = _windows(maps, rows[some], columns[some], shape)
            seen = _windows(picture, rows[some] * stride, columns[some] * stride, size) if scored else None
            sums.append(_outputs(model, windows, seen))
        yield Outputs(*(np.mean(values, axis=0) for values in zip(*sums, strict=True)))


def _pixels(info: ModelInfo, region: np.ndarray, device: torch.device) -> Tensor:
    """The region as the network takes it, shape (1, 3, H, W), without what a crop takes off every patch."""
    steps, (height, width) = info.preprocessing, info.patch_size
    tensor = torch.from_numpy(np.ascontiguousarray(region)).to(device).permute(2, 0, 1)[None]
    for axis, side in ((2, height), (3, width)):
        kept = min(side, steps.crop or side)
        tensor = tensor.narrow(axis, (side - kept) // 2, tensor.shape[axis] - (side - kept))
    whole = steps.model_copy(update={"crop": None, "size": None, "frame": None})
    return whole.normalise(whole.pixels(tensor))


def _places(pixels: Tensor, size: tuple[int, int], stride: int) -> list[int]:
    """Rows and columns of places for patches of a size in a region."""
    return [(length - side) // stride + 1 for length, side in zip(pixels.shape[2:], size, strict=True)]


def _windows(maps: Tensor, rows: Tensor, columns: Tensor, size: Sequence[int]) -> Tensor:
    """Windows of one picture's maps (1, C, H, W), whose corners are given: (N, C, *size)."""
    every = maps[0].unfold(1, size[0], 1).unfold(2, size[1], 1)
    return every[:, rows, columns].transpose(0, 1)


def _outputs(model: Model, maps: Tensor, pixels: Tensor | None) -> Outputs:
    """What follows the body, for windows as for patches; features where the pixels are given."""
    classes = maps.new_zeros(len(maps), 0)
    if model.info.several is None:
        logits = model.network.from_maps(maps)
    else:
        logits, classes = model.network.with_classes(maps)
    features = maps.new_zeros(len(maps), 0) if pixels is None else likeness_features(maps, pixels)
    values, features, classes = (part.float().cpu() for part in (logits, features, classes))
    return Outputs(values.double().numpy(), features.numpy(), classes.double().numpy())
