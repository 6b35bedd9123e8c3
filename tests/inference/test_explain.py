"""Heat maps against networks whose answer is known by hand, captum's Grad-CAM, and what every map must obey."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from torch.nn import functional

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.super_resolution import SuperResolution
from tumortrace.inference.explain import METHODS, heat_map, heat_maps
from tumortrace.inference.explain.evidence import blank, evidence, prepared_pixels
from tumortrace.models.architecture import ARCHITECTURES, Maps, Network, build_network
from tumortrace.models.bundle import Model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData
from tumortrace.models.families.backbone import lay_out

RANDOM = np.random.default_rng(0)
VIT = {"body": "vit_tiny_patch16_224", "pooling": "own"}
SWIN = {"body": "swin_tiny_patch4_window7_224", "pooling": "own"}
SMALL_VIT: dict[str, Any] = {**VIT, "options": {"img_size": 64, "depth": 2}}
SMALL_SWIN: dict[str, Any] = {**SWIN, "options": {"img_size": 64, "window_size": 4, "depths": [1, 1, 1, 1]}}


class Red(nn.Module):
    """Of means of colours, two times red minus blue."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        means = maps.mean(self.axes)
        return 2 * means[:, :1] - means[:, 2:]


class RedSum(Network):
    """Mean of red, times two, minus mean of blue."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.top = nn.Identity(), Red((2, 3))


class Tokens(Network):
    """RedSum on the mean colours of 4x4 tokens, read row by row behind `prefix` tokens that say nothing."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.body, self.top = nn.Identity(), Red((1,))
        self.body.num_prefix_tokens = prefix  # type: ignore[assignment]
        self.prefix = prefix

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        patches = functional.adaptive_avg_pool2d(images, 4).flatten(2).transpose(1, 2)
        prefix = torch.full((len(images), self.prefix, 3), 9.0)
        tokens: torch.Tensor = self.body(torch.cat([prefix, patches], 1))
        return tokens

    def as_maps(self, activations: torch.Tensor) -> torch.Tensor:
        return super().as_maps(lay_out(activations, self.body))


class LastTokens(Network):
    """RedSum on a map with the colours last, as Swin has it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.top = nn.Identity(), Red((1, 2))
        self.body.output_fmt = "NHWC"  # type: ignore[assignment]

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.body(images.permute(0, 2, 3, 1))
        return maps

    def as_maps(self, activations: torch.Tensor) -> torch.Tensor:
        return super().as_maps(lay_out(activations, self.body))


class Corner(Network):
    """Ten times the red of one pixel; all else is not looked at."""

    attention_layer = None

    def __init__(self) -> None:
        super().__init__()
        self.body, self.top = nn.Identity(), nn.Identity()

    def pooled(self, maps: Maps) -> torch.Tensor:
        assert isinstance(maps, torch.Tensor)
        return 10 * maps[:, :1, 3, 12]


def wrap(network: Network, patch: tuple[int, int] = (16, 16), /, *, symmetries: bool = False, **steps: Any) -> Model:
    """A model around a network."""
    info = ModelInfo(
        name="by-hand",
        architecture=Architecture(name="by-hand"),
        preprocessing=Preprocessing(**steps),
        patch_size=patch,
        classes=("blue", "red"),
        positive_class="red",
        symmetries=symmetries,
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe="none"),
    )
    return Model(info, network, torch.device("cpu"))


def built(name: str, patch: tuple[int, int], arguments: dict[str, Any], /, **options: Any) -> Model:
    """A model of a registered family, with weights that differ from the neutral ones that it starts with."""
    torch.manual_seed(1)
    inputs = Preprocessing(**{k: v for k, v in options.items() if k != "symmetries"}).output_size(patch)
    network = build_network(name, inputs, arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return wrap(network, patch, **options)


def pictures(count: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth random pictures."""
    coarse = torch.from_numpy(RANDOM.uniform(0, 255, (count, 3, 6, 6)))
    smooth = functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


IMAGE = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
RED, BLUE = IMAGE[..., 0] / 255, IMAGE[..., 2] / 255


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("grad-cam", np.maximum(0, 2 * RED - BLUE) / 256),  # gradients are 2/256, 0, -1/256 everywhere
        ("layer-cam", 2 * RED / 256),
        ("grad-cam++", RED / (1 + RED.mean())),  # 256 places of (2/256) / (2 + sum of red * 2/256)
        ("integrated-gradients", (2 * (RED - 0.95) - (BLUE - 0.95)) / 256),
    ],
)
def test_maps_of_a_linear_network_are_those_worked_out_by_hand(method: str, expected: np.ndarray) -> None:
    """Twice the mean of red minus the mean of blue, with the identity as the layer of features."""
    np.testing.assert_allclose(heat_map(wrap(RedSum()), IMAGE, method), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_heat_stays_within_the_crop(method: str) -> None:
    """What the network does not see gets no heat, and the crop lies in the centre."""
    heat = heat_map(wrap(RedSum(), crop=8), IMAGE, method)
    assert (heat[4:12, 4:12] != 0).mean() > 0.5
    heat[4:12, 4:12] = 0
    assert not heat.any()


def test_grad_cam_is_captums() -> None:
    """On a residual network, one view, no ensemble."""
    model, images = (
        built("centre-resnet", (48, 48), {"stem": 8, "widths": [8, 16], "depths": [1, 1]}),
        pictures(3, (48, 48)),
    )
    with torch.no_grad():
        model.network.top[2].weight.abs_()  # so that there is positive evidence
    pixels = prepared_pixels(model, images)
    reference = LayerGradCam(model.network, model.network.body).attribute(pixels, relu_attributions=True)
    expected = functional.interpolate(reference, (48, 48), mode="bilinear")[:, 0].detach().numpy()
    assert expected.max() > 0
    np.testing.assert_allclose(heat_maps(model, images, "grad-cam"), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_are_laid_out_row_by_row_without_those_for_the_whole(prefix: int) -> None:
    """Tokens' maps are the convolutional ones of the picture shrunk to the tokens, whatever stands before them."""
    heat = heat_map(wrap(Tokens(prefix)), IMAGE, "layer-cam")
    red = functional.adaptive_avg_pool2d(torch.from_numpy(RED)[None, None], 4)
    expected = functional.interpolate(2 * red / (16 + prefix), (16, 16), mode="bilinear")[0, 0]
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_channels_last_are_recognised() -> None:
    """A body that says NHWC gives the map of its NCHW twin."""
    for method in ("grad-cam", "grad-cam++", "layer-cam"):
        np.testing.assert_allclose(heat_map(wrap(LastTokens()), IMAGE, method), heat_map(wrap(RedSum()), IMAGE, method))


def test_occlusion_finds_the_one_pixel_that_counts() -> None:
    """Heat only where a window of 2 px reaches, most there: the fall when it turns black (the picture is grey)."""
    image = np.pad(np.full((16, 16, 3), 40, np.uint8), ((4, 4), (4, 4), (0, 0)))
    image[7, 16] = 200
    heat = heat_map(wrap(Corner(), (24, 24), crop=16), image, "occlusion")[4:20, 4:20]
    covered = np.zeros((16, 16), bool)
    covered[2:5, 11:14] = True  # by windows that reach the pixel, one starting at each pixel
    assert np.abs(heat[~covered]).max() < 1e-6
    assert (heat[covered] > 0).all()
    assert heat.max() == heat[3, 12] == pytest.approx(10 * 200 / 255, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetries": True, "normalisation": "caffe"},
        {"crop": 24, "super_resolution": SuperResolution(scale=2), "size": 32, "normalisation": "imagenet"},
    ],
)
def test_integrated_gradients_add_up_to_the_difference_of_logits(options: dict[str, Any]) -> None:
    """Completeness, through resizing, super-resolution and symmetries, for curved networks."""
    model, images = (
        built("centre-resnet", (32, 32), {"stem": 8, "widths": [8, 16], "depths": [1, 1]}, **options),
        pictures(2, (32, 32)),
    )
    pixels = prepared_pixels(model, images)
    with torch.inference_mode():
        expected = (evidence(model, pixels) - evidence(model, blank(pixels))).numpy()
    found = heat_maps(model, images, "integrated-gradients").sum((1, 2))
    assert np.abs(expected).min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0.06, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("symmetries", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (32, 24)])
def test_what_is_explained_is_what_is_predicted(size: tuple[int, int], symmetries: bool) -> None:
    """The differentiable function gives the logits that `Model.logits` gives."""
    members = [
        {"name": "plain-cnn"},
        {"name": "centre-resnet", "preprocessing": {"crop": 24, "normalisation": "centred"}},
    ]
    for name, arguments in (("ensemble", {"members": members}), ("plain-cnn", {})):
        model, images = built(name, size, arguments, symmetries=symmetries), pictures(3, size)
        found = evidence(model, prepared_pixels(model, images)).detach().numpy()
        np.testing.assert_allclose(found, model.logits(images), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_averages_symmetries_has_maps_that_turn_with_the_picture(method: str) -> None:
    """Turned or mirrored, a patch has the turned or mirrored map; without the average it has not."""
    for symmetries in (True, False):
        model = built("plain-cnn", (24, 24), {"blocks": [4], "padding": "same"}, symmetries=symmetries)
        image = pictures(1, (24, 24))[0]
        heat = heat_map(model, image, method)
        turns = (lambda a: np.rot90(a, 1), lambda a: np.rot90(a, 3), lambda a: a[:, ::-1], lambda a: a.swapaxes(0, 1))
        found = [heat_map(model, np.ascontiguousarray(turn(image)), method) for turn in turns]
        alike = [np.corrcoef(a.ravel(), turn(heat).ravel())[0, 1] for a, turn in zip(found, turns, strict=True)]
        assert (min(alike) > 0.99) == symmetries, alike


def test_maps_of_an_ensemble_are_the_mean_of_its_members() -> None:
    """Each with its own preprocessing; a member's crop is framed."""
    steps = {"crop": 24, "normalisation": "imagenet"}
    small = {"blocks": [4]}
    members = [
        {"name": "plain-cnn", "arguments": small},
        {"name": "plain-cnn", "arguments": small, "preprocessing": steps},
    ]
    whole, images = built("ensemble", (32, 32), {"members": members}), pictures(2, (32, 32))
    parts = [wrap(net, (32, 32), **chosen) for net, chosen in zip(whole.network.body, ({}, steps), strict=True)]
    for method in ("grad-cam", "grad-cam++", "layer-cam"):
        expected = np.mean([heat_maps(part, images, method) for part in parts], axis=0)
        assert expected.max() > 0
        np.testing.assert_allclose(heat_maps(whole, images, method), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in ARCHITECTURES if name != "texture"),
        ("backbone", {"body": "resnet18", "pooling": "own"}),
        ("backbone", SMALL_VIT),
        ("backbone", SMALL_VIT | {"options": {**SMALL_VIT["options"], "global_pool": "avg"}}),
        ("backbone", SMALL_SWIN),
    ],
)
def test_every_method_explains_every_family_of_networks(name: str, arguments: dict[str, Any]) -> None:
    """A finite map that is not flat, frozen or not; signed only where the method says so."""
    model, images = built(name, (64, 64), arguments), pictures(1, (64, 64))
    thawed = heat_maps(model, images, "layer-cam")
    model.network.requires_grad_(False)
    for method, entry in METHODS.items():
        heat = heat_maps(model, images, method)
        assert heat.shape == (1, 64, 64)
        assert heat.dtype == np.float64
        assert np.isfinite(heat).all()
        assert entry.signed or heat.min() >= 0
        assert method == "grad-cam" or np.ptp(heat) > 0  # Grad-CAM's weights may all be negative
    np.testing.assert_array_equal(heat_maps(model, images, "layer-cam"), thawed)


def test_hand_made_descriptors_are_explained_by_occlusion_alone() -> None:
    """Methods that need gradients are refused in one line that says what to do."""
    model, images = built("texture", (24, 24), {"descriptors": ["intensity"]}), pictures(1, (24, 24))
    assert np.ptp(heat_maps(model, images, "occlusion")) > 0
    for method, entry in METHODS.items():
        if entry.needs is not None:
            with pytest.raises(ModelError, match="occlusion") as refused:
                heat_maps(model, images, method)
            assert "\n" not in str(refused.value)


def test_an_unknown_method_and_an_image_of_another_size_are_refused() -> None:
    """With the names that there are, and the size wanted."""
    with pytest.raises(ModelError, match="one of grad-cam, "):
        heat_map(wrap(RedSum()), IMAGE, "saliency")
    with pytest.raises(ModelError, match="16, 16, 3"):
        heat_map(wrap(RedSum()), IMAGE[:8])


def test_a_map_says_nothing_of_what_the_frame_leaves_out() -> None:
    """A body that sees the inner half of the sides has a map that ends there, and lies there as without a frame."""
    model = built("plain-cnn", (48, 48), {"blocks": [4], "padding": "same"}, size=24, frame=48)
    bare = wrap(model.network, (24, 24))
    image = pictures(1, (48, 48))[0]
    heat = heat_map(model, image, "layer-cam")
    inner = heat[12:36, 12:36]
    assert inner.max() > 0
    assert heat.sum() == pytest.approx(inner.sum())
    np.testing.assert_allclose(inner, heat_map(bare, image[12:36, 12:36], "layer-cam"), atol=1e-5)
