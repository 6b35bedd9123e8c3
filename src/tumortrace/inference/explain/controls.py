"""Heat maps that explain nothing, to measure methods against: a good measure must tell them from the real ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.inference.explain.methods import Method
from tumortrace.models.bundle import Model


def centre(_model: Model, pixels: Tensor) -> Tensor:
    """A bump over the centre, whatever the picture and the model: patches are labelled by their centre."""
    rows, columns = (torch.linspace(-1, 1, side, device=pixels.device) for side in pixels.shape[2:])
    bump = torch.exp(-2 * (rows[:, None] ** 2 + columns[None] ** 2))
    return bump.expand(len(pixels), 1, *bump.shape)


def edges(_model: Model, pixels: Tensor) -> Tensor:
    """The strength of edges (Sobel), whatever the model: what looks like an explanation and is none."""
    grey = functional.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]], device=pixels.device)
    both = functional.conv2d(grey, torch.stack([kernel, kernel.T])[:, None])
    return both.norm(dim=1, keepdim=True)


CONTROLS: dict[str, Method] = {
    "centre": Method("Centre bump (control)", "", centre, None, gradients=False),
    "edges": Method("Edge detector (control)", "", edges, None, gradients=False),
}
