"""Streams: order, errors, threads, and predictions that are those of one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.models.test_exported import model
from tumortrace.models.bundle import Model
from tumortrace.models.runtimes import Outputs
from tumortrace.models.streams import streams
from tumortrace.training.optimiser import Muon

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_and_two_compute_at_once() -> None:
    """The first item ends after the second has begun, and is still the first."""
    begun = [threading.Event() for _ in range(4)]

    def compute(item: int) -> tuple[int, int, bool]:
        begun[item].set()
        waited = begun[item + 1].wait(10) if item % 2 == 0 else True
        return item, torch.get_num_threads(), waited

    with streams(CPU) as several:
        assert torch.get_num_threads() == 1
        assert list(several.map(compute, range(4))) == [(item, 1, True) for item in range(4)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_ends_all_and_threads_are_given_back() -> None:
    """It is raised where the results are taken; what waits is not begun, and items are taken as they are needed."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    def compute(item: int) -> int:
        time.sleep(0.01)
        return 1 // (item - 3)

    with pytest.raises(ZeroDivisionError), streams(CPU) as several:
        list(several.map(compute, items()))
    assert torch.get_num_threads() == 2
    assert len(taken) < 12


def test_an_accelerator_and_one_core_have_no_threads() -> None:
    """There the calling thread computes."""
    with streams(torch.device("meta")) as several:
        assert list(several.map(lambda _: threading.current_thread(), [0])) == [threading.main_thread()]


@pytest.mark.usefixtures("two_threads")
def test_predictions_in_streams_are_those_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same logits in the same order, to the last bit, from several batches."""
    monkeypatch.setattr("tumortrace.models.bundle.prediction_batch", lambda size: 8)
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    small = model("centre-resnet", {"stem": 8, "widths": [8], "depths": [1], "instance": 2})
    together = small.embedded(images, np.arange(50)[::-1])
    torch.set_num_threads(1)
    alone = small.embedded(images, np.arange(50)[::-1])
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_numbers_too_small_to_be_fast_are_zero_in_every_stream(threads: int) -> None:
    """What decays does not end where operations are a hundred times slower; afterwards all is as before."""
    before, tiny = torch.get_num_threads(), torch.tensor([1e-40])
    torch.set_num_threads(threads)
    with streams(CPU) as several:
        assert list(several.map(lambda _: (tiny * 1).item(), range(4))) == [0.0] * 4
        assert (tiny * 1).item() == 0
    torch.set_num_threads(before)
    assert (tiny * 1).item() > 0


def test_what_an_optimiser_remembers_of_a_dead_channel_ends_at_zero() -> None:
    """Momentum of a gradient that has become 0: no step of a long training is slower than the first."""
    weight = torch.nn.Parameter(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    optimiser = Muon([weight], lr=0.001)
    with streams(CPU):
        weight.grad = torch.ones(4, 8)
        optimiser.step()
        weight.grad = torch.tensor([[1.0], [1.0], [1.0], [0.0]]).expand(4, 8).contiguous()  # the last channel has died
        for _ in range(1000):
            optimiser.step()
    memory = optimiser.state[weight]["momentum"]
    assert (memory[3] == 0).all()
    assert (memory[:3] > 0.5).all()


@pytest.mark.usefixtures("two_threads")
def test_matrices_that_learn_side_by_side_learn_the_same() -> None:
    """To the last bit, momentum included."""
    learnt = []
    for several in (False, True):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((8, 4, 3, 3), (4, 16), (8,))]
        optimiser = Muon(weights, lr=0.01, weight_decay=0.1)
        with streams(CPU) as pool:
            optimiser.streams = pool if several else optimiser.streams
            for _ in range(5):
                for weight in weights:
                    weight.grad = torch.randn(weight.shape, generator=generator)
                optimiser.step()
        learnt.append([*weights, *(optimiser.state[weight]["momentum"] for weight in weights[:2])])
    assert all(torch.equal(one, other) for one, other in zip(*learnt, strict=True))


@pytest.mark.usefixtures("two_threads")
def test_one_batch_is_computed_by_both_cores_without_shared_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty images are two batches of a thread each, on one core the same two."""
    network = model("centre-resnet", {"stem": 8, "widths": [8], "depths": [1]})
    sizes: list[tuple[int, int]] = []
    real = Model._batch

    def batch(self: Model, images: np.ndarray, embed: bool) -> Outputs:
        sizes.append((len(images), torch.get_num_threads()))
        return real(self, images, embed)

    monkeypatch.setattr(Model, "_batch", batch)
    images = np.random.default_rng(0).integers(0, 256, (40, *network.info.patch_size, 3), dtype=np.uint8)
    network.assess(images)
    assert sizes == [(20, 1), (20, 1)]
