"""Steps compiled by torch, which loads its compiler here alone: that takes longer than a small training's start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tumortrace.errors import RecipeError
from tumortrace.models.architecture import Network

BACKEND = "inductor"  # torch's own; wants a C++ compiler, and Triton on a GPU

Compute = Callable[[Network, Tensor], Tensor]


def compiled(compute: Compute) -> Compute:
    """The same function of a network and its inputs, compiled anew for each of the few sizes that batches have.

    Weights, running statistics and names stay those of the network.
    """
    return torch.compile(compute, backend=BACKEND, dynamic=False)


@contextmanager
def compiling() -> Iterator[None]:
    """Tell in a line what keeps this machine from compiling, as is found out by the first steps, forth and back.

    Raises:
        RecipeError: It cannot.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise RecipeError(
            f"the network cannot be compiled here ({' '.join(str(error).split())[:200]})",
            where="compile",
            expected="a C++ compiler, and Triton for a GPU",
            remedy="install them, or leave it with --set compile=false",
        ) from error
