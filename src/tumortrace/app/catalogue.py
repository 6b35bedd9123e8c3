"""The models that a server has loaded, each with one thread and a queue whose images are predicted together."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np

from tumortrace.app.problems import Problem, busy
from tumortrace.app.settings import Limits, Settings
from tumortrace.errors import ServeError
from tumortrace.evaluation.classes import PREDICTED, SEPARATOR, SET, class_columns
from tumortrace.inference.explain import allowed_methods
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.models.description import SeveralClasses
from tumortrace.records.run import RunRecord

T = TypeVar("T")


class Batcher:
    """Gathers images into small batches for a function that takes one batch at a time.

    All that the model does happens in one thread, so that requests do not fight over the cores, and explanations,
    which watch the network's layers, see no one else's images pass. The queue is bounded: what does not fit is
    refused at once, with a time after which to ask again.

    Args:
        function: From uint8 (N, H, W, 3) to one answer per image; called in the thread of this batcher.
        limits: Sizes of batch and queues, and how long a batch waits for company.
        observe: Told the size of each batch.
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], list[Any]],
        limits: Limits,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._function, self._limits, self._observe = function, limits, observe
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[Any]]] = deque()
        self._jobs = 0
        self._turn = asyncio.Lock()  # one job at a time goes to the thread, so that a batch waits for one alone
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images and jobs that wait."""
        return len(self._waiting) + self._jobs

    def start(self) -> None:
        """Begin to work; call it within the event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then end."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def submit(self, images: np.ndarray) -> list[Any]:
        """The answers to these images, in their order.

        Args:
            images: uint8, shape (N, H, W, 3).

        Raises:
            Problem: The queue has no room for them (503).
        """
        if len(self._waiting) + len(images) > self._limits.queue:
            raise busy("more images wait for the model than it can take")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in images]
        self._waiting.extend(zip(images, futures, strict=True))
        self._arrived.set()
        return list(await asyncio.gather(*futures))

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns, called in the model's thread between batches.

        Raises:
            Problem: Too many such calls wait (503).
        """
        if self._jobs >= self._limits.jobs:
            raise busy("more explanations wait for the model than it can make")
        self._jobs += 1
        try:
            async with self._turn:
                return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._jobs -= 1

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._limits.batch:
                await asyncio.sleep(self._limits.wait_seconds)
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limits.batch))]
            if not self._waiting:
                self._arrived.clear()
            batch = [(image, future) for image, future in taken if not future.cancelled()]
            if not batch:
                continue
            self._observe(len(batch))
            images = np.stack([image for image, _ in batch])
            try:
                answers = await loop.run_in_executor(self._thread, self._function, images)
            except Exception as error:
                for _, future in batch:
                    if not future.cancelled():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.cancelled():
                    future.set_result(answer)


@dataclass(frozen=True)
class Served:
    """One model that answers.

    Attributes:
        name: By which callers choose it.
        model: The loaded bundle.
        folder: Run folder, or the bundle where there is no run around it.
        named: What was named: one of these, or an exported file, which computes slides too.
        batcher: Its queue and thread; use the model through it alone.
        methods: Names of those in which it can be asked to explain.
    """

    name: str
    model: Model
    folder: Path
    named: Path
    batcher: Batcher
    methods: tuple[str, ...]


class Catalogue:
    """The loaded models by name; the first is the one that is asked where none is named.

    Args:
        settings: Which runs, on which device.
        observe: Told the model's name and the size of each batch.

    Raises:
        ModelError: A run has no model, or a damaged one, or one that takes images prepared otherwise.
        ServeError: Two runs have the same name.
    """

    def __init__(self, settings: Settings, observe: Callable[[str, int], None]) -> None:
        self._served: dict[str, Served] = {}
        for run in settings.runs:
            served = _load(run, settings, observe)
            if served.name in self._served:
                raise ServeError(
                    f"two models named {served.name!r}", where=run, remedy="name each run once, or rename one's folder"
                )
            self._served[served.name] = served

    @property
    def names(self) -> list[str]:
        """Names of the models, the first being the default."""
        return list(self._served)

    @property
    def all(self) -> list[Served]:
        """The models in the order in which they were named."""
        return list(self._served.values())

    def get(self, name: str | None = None) -> Served:
        """The model of this name, or the first.

        Raises:
            Problem: There is none of this name (404).
        """
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise Problem(404, f"no model named {name[:200]!r}", f"choose one of {', '.join(self.names)}")
        return self._served[name]


def _load(run: Path, settings: Settings, observe: Callable[[str, int], None]) -> Served:
    model = load_model(run, device=settings.device, backend="auto")
    model.require_preparation(None, "uploaded images")
    bundle = find_bundle(run).resolve()
    folder = bundle.parent if RunRecord.exists(bundle.parent) else bundle
    name = folder.name
    batcher = Batcher(lambda images: assess(model, name, images), settings.limits, lambda size: observe(name, size))
    return Served(name, model, folder, run, batcher, tuple(allowed_methods(model)))


class ClassesSaid(TypedDict):
    """What a model says of more than two classes: the likeliest, the prediction set, and all probabilities."""

    predicted: str
    set: list[str] | None
    probabilities: dict[str, float]


class Said(TypedDict):
    """What a model says of one image; see the API's `Prediction`."""

    label: str
    probability: float
    decision: str
    in_distribution: bool | None
    model: str
    ood_score: float | None
    classes: ClassesSaid | None
    components: str | None


def components_text(components: np.ndarray) -> str:
    """What a whole set is judged by, of one image: float16, little-endian, as base64.

    Example:
        >>> components_of([components_text(np.array([1.0, -2.5]))], 2).tolist()
        [[1.0, -2.5]]
    """
    return base64.b64encode(components.astype("<f2").tobytes()).decode()


def components_of(texts: Sequence[str], width: int) -> np.ndarray:
    """The same of several images, read again, float32, shape (N, width).

    Raises:
        Problem: One is nothing of the kind (422).
    """
    try:
        rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f2") for text in texts]
    except ValueError:
        rows = [np.empty(0)]
    values = np.array([row for row in rows if len(row) == width], np.float32).reshape(-1, width)
    if len(values) != len(texts) or not np.isfinite(values).all():
        raise Problem(
            422,
            "components that this model did not give",
            "send those that /api/predict?components=true answers, of this model",
        )
    return values


def assess(model: Model, name: str, images: np.ndarray) -> list[Said]:
    """What a model says of each image, as the API answers it but for the file's name.

    Args:
        model: The model.
        name: Under which it is served.
        images: uint8, shape (N, H, W, 3); H and W are the bundle's `patch_size`.
    """
    info, said = model.info, model.assess(images)
    return [
        {
            "label": info.classes[int(said.prediction[row])],
            "probability": float(said.probability[row]),
            "decision": str(said.decision[row]),
            "in_distribution": None if said.in_distribution is None else bool(said.in_distribution[row]),
            "model": name,
            "ood_score": None if said.ood_score is None else float(said.ood_score[row]),
            "classes": None if said.by_class is None else _classes_said(info.several, said.by_class, row),
            "components": None if said.components is None else components_text(said.components[row]),
        }
        for row in range(len(images))
    ]


def _classes_said(several: SeveralClasses | None, by_class: Mapping[str, np.ndarray], row: int) -> ClassesSaid | None:
    if several is None:
        return None
    held = str(by_class[SET][row]).split(SEPARATOR) if SET in by_class else None
    return {
        "predicted": str(by_class[PREDICTED][row]),
        "set": None if held is None else [name for name in held if name],
        "probabilities": {
            name: float(by_class[column][row])
            for name, column in zip(several.names, class_columns(several.names), strict=True)
        },
    }
