"""Images that arrive together are predicted together, and each caller gets its own answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumortrace import load_model
from tumortrace.app.catalogue import Batcher, assess
from tumortrace.app.problems import Problem
from tumortrace.app.settings import Limits
from tumortrace.images.decoding import read_image


def images(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1).repeat(3, 3)


def running(function: Callable[[np.ndarray], list[Any]], limits: Limits, use: Callable[[Batcher], Any]) -> list[int]:
    """Run `use` on a started batcher; returns the sizes of its batches."""
    sizes: list[int] = []

    async def main() -> None:
        batcher = Batcher(function, limits, sizes.append)
        batcher.start()
        await use(batcher)
        await batcher.stop()

    asyncio.run(main())
    return sizes


def values(batch: np.ndarray) -> list[int]:
    return [int(image.flat[0]) for image in batch]


def test_each_caller_gets_its_own_answers_in_order_from_shared_batches() -> None:
    """Forty callers of one to three images; batches are of at most eight, and far fewer than callers."""

    async def use(batcher: Batcher) -> None:
        asked = [tuple(range(start, start + 1 + start % 3)) for start in range(40)]
        answers = await asyncio.gather(*(batcher.submit(images(*each)) for each in asked))
        assert [tuple(each) for each in answers] == asked

    sizes = running(values, Limits(batch=8), use)
    assert max(sizes) == 8
    assert len(sizes) <= 12


def test_what_does_not_fit_the_queue_is_refused_with_a_time_to_ask_again() -> None:
    """While the model is busy, a queue of four takes four more images and not a fifth; afterwards it takes again."""
    busy, free = threading.Event(), threading.Event()

    def slow(batch: np.ndarray) -> list[int]:
        busy.set()
        free.wait(60)
        return values(batch)

    async def use(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(images(1)))
        await asyncio.to_thread(busy.wait, 60)
        second = asyncio.create_task(batcher.submit(images(2, 3, 4, 5)))
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refusal:
            await batcher.submit(images(6))
        assert refusal.value.status_code == 503
        assert int((refusal.value.headers or {})["Retry-After"]) > 0
        free.set()
        assert (await first, await second) == ([1], [2, 3, 4, 5])
        assert await batcher.submit(images(6)) == [6]

    running(slow, Limits(queue=4, batch=4), use)


def test_a_failing_batch_fails_its_callers_alone() -> None:
    """The others are answered, and so are later ones."""

    def picky(batch: np.ndarray) -> list[int]:
        if 13 in values(batch):
            raise ValueError("thirteen")
        return values(batch)

    async def use(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.submit(images(13))
        assert await batcher.submit(images(14)) == [14]

    running(picky, Limits(), use)


def test_a_caller_that_leaves_holds_nobody_up() -> None:
    """Its images are dropped; the batch goes on."""

    async def use(batcher: Batcher) -> None:
        leaving = asyncio.create_task(batcher.submit(images(1, 2, 3)))
        staying = asyncio.create_task(batcher.submit(images(4)))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == [4]

    assert sum(running(values, Limits(wait_seconds=0.05), use)) == 1


def test_explanations_and_predictions_never_run_at_once() -> None:
    """They share one thread: an explanation watches the network's layers."""
    inside: list[str] = []

    def alone(name: str) -> str:
        inside.append(name)
        assert len(inside) == 1
        threading.Event().wait(0.002)
        return inside.pop()

    async def use(batcher: Batcher) -> None:
        calls = [batcher.call(lambda: alone("explain")) for _ in range(10)]
        await asyncio.gather(*calls, *(batcher.submit(images(value)) for value in range(10)))

    running(lambda batch: [alone("predict")] * len(batch), Limits(batch=2), use)


def test_explanations_that_wait_let_a_prediction_pass() -> None:
    """Of six explanations that wait, a prediction asked for afterwards waits for one or two, not for all."""
    ended: list[str] = []
    busy, asked = threading.Event(), threading.Event()

    def explanation() -> None:
        busy.set()
        asked.wait(60)
        time.sleep(0.05)
        ended.append("explanation")

    async def predict(batcher: Batcher) -> None:
        await batcher.submit(images(1))
        ended.append("prediction")

    async def use(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.call(explanation)) for _ in range(6)]
        await asyncio.to_thread(busy.wait, 60)
        late = asyncio.create_task(predict(batcher))
        await asyncio.sleep(0)  # until it waits
        asked.set()
        await asyncio.gather(late, *waiting)

    running(values, Limits(), use)
    assert ended.index("prediction") <= 2
    assert len(ended) == 7


def test_an_answer_does_not_depend_on_who_shares_the_batch(small_run: Path, patches: list[Path]) -> None:
    """Alone, and in company of others at any place: the same label, and the same probability to 1e-5."""
    model = load_model(small_run, device="cpu")
    pictures = np.stack([read_image(path) for path in patches[:12]])
    alone = [assess(model, "m", picture[None])[0] for picture in pictures]
    for order in (np.arange(12), np.random.default_rng(0).permutation(12)):
        for start in range(0, 12, 5):
            rows = order[start : start + 5]
            for row, answer in zip(rows, assess(model, "m", pictures[rows]), strict=True):
                assert answer["label"] == alone[row]["label"]
                assert answer["probability"] == pytest.approx(alone[row]["probability"], abs=1e-5)
