"""The model bundle: a few files that hold everything needed to predict, and run no code when loaded.

`weights.safetensors` holds the network's weights, `likeness.safetensors` and `drift.safetensors` what training images
look like to it, one by one and as a whole, and `model.json` (see `ModelInfo`) all the rest: architecture,
preprocessing, class names, calibration, and the SHA-256 of the other files, which are checked on loading.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError

from tumortrace.errors import ModelError
from tumortrace.evaluation.drift import NO_REFERENCE, NOT_OF_SLIDES, drift_line
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.description import ModelInfo
from tumortrace.models.device import keep_memory, prediction_batch, resolve_device
from tumortrace.models.drift import DriftReference
from tumortrace.models.ood import OodDetector, likeness_features
from tumortrace.models.runtimes import Backend, Outputs, Runtime, open_runtime
from tumortrace.records.evaluation import NamedModel
from tumortrace.records.files import replacing, require_sha256, sha256, write_json
from tumortrace.records.metrics import Drift
from tumortrace.records.model import DESCRIPTION, GENERATOR, ONNX, ONNX_INT8, WEIGHTS
from tumortrace.records.progress import track
from tumortrace.records.run import Run, RunRecord

if TYPE_CHECKING:
    import torch

    from tumortrace.models.architecture import Network

SMALLEST_BATCH = 8  # images that are not divided
REMEDY = "copy the bundle again from where it came"
Rows = Sequence[int] | np.ndarray | None
#: What computes an exported file that is named itself.
EXPORTED: dict[str, Backend] = {ONNX: "onnx", ONNX_INT8: "int8"}


class How(TypedDict, total=False):
    """Options of `Model.assess` and its like."""

    description: str | None
    prepared: bool
    batch: int | None


@dataclass(frozen=True)
class Assessment:
    """What a model says of N images, in their order. `Model.assess` makes it; whoever shows a prediction uses it.

    Attributes:
        logit: Uncalibrated log-odds of the positive class, float64, shape (N,).
        probability: Calibrated probability of the positive class, float64, shape (N,), range [0, 1].
        prediction: 1 where the probability reaches the bundle's threshold, else 0; int64, shape (N,).
        decision: `positive`, `negative` or `refer`, str, shape (N,).
        ood_score: How unlike the training images each is, float64, shape (N,), larger is stranger; None where the
            bundle has no such score.
        in_distribution: Whether that score stays within the bundle's limit, bool, shape (N,); None likewise.
        by_class: Of more than two classes, columns by name: `SeveralClasses.columns`; None where there are two.
        components: What whole sets are judged by, float32, shape (N, K): `OodDetector.components`; None where the
            bundle keeps no reference for them.
    """

    logit: NDArray[np.float64]
    probability: NDArray[np.float64]
    prediction: NDArray[np.int64]
    decision: NDArray[np.str_]
    ood_score: NDArray[np.float64] | None = None
    in_distribution: NDArray[np.bool_] | None = None
    by_class: dict[str, np.ndarray] | None = None
    components: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.probability)

    def columns(self) -> dict[str, np.ndarray]:
        """Everything that there is, by name, as tables of predictions have it."""
        apart = ("by_class", "components")
        known = {name: values for name, values in vars(self).items() if values is not None and name not in apart}
        return known | (self.by_class or {})


class Model:
    """A network with its preprocessing and calibration, ready to predict.

    Args:
        info: What `model.json` says.
        network: The network; put into inference mode. None loads it from the folder when it is first asked for, as an
            exported graph predicts without torch.
        device: Where it computes; None is the CPU.
        detector: Scores how unlike the training images an image is, where the bundle has it.
        drift: Training images with which whole sets are compared, where the bundle has them.
        folder: The bundle's, where it has one.
        runtime: What computes logits and features instead of the network; see `load_model`.
    """

    def __init__(
        self,
        info: ModelInfo,
        network: Network | None,
        device: torch.device | None,
        detector: OodDetector | None = None,
        *,
        drift: DriftReference | None = None,
        folder: Path | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        keep_memory()
        self.info, self.detector, self.folder, self.runtime, self.drift = info, detector, folder, runtime, drift
        self.precision = "fp32"
        if device is not None:
            self.device = device
        if network is not None:
            self.network = self._placed(network)

    @cached_property
    def device(self) -> torch.device:
        """Where the network computes."""
        import torch

        return torch.device("cpu")

    @cached_property
    def network(self) -> Network:
        """The network, from the folder where it was not given."""
        assert self.folder is not None
        return self._placed(_read_network(self.folder, self.info))

    def _placed(self, network: Network) -> Network:
        import torch

        return network.to(self.device).to(memory_format=torch.channels_last).eval()

    def at(self, precision: str) -> Model:
        """The model, of the same weights, that computes at "fp32" or "bf16"; see `models.precision`."""
        other = copy(self)
        other.precision = precision
        return other

    def computing(self) -> AbstractContextManager[object]:
        """The context in which its network computes without gradients, at its precision; each thread's own."""
        import torch

        stack = ExitStack()
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"))
        return stack

    @property
    def named(self) -> NamedModel:
        """What records say of the model."""
        return NamedModel(name=self.info.name, weights_sha256=self.info.weights_sha256)

    @property
    def run_folder(self) -> Path:
        """The folder around the bundle.

        Raises:
            ModelError: The model lies in none.
        """
        if self.folder is None:
            raise ModelError("a model that is in no bundle", where=self.info.name, remedy="save it, or load one")
        return self.folder.parent

    def of_class(self, name: str) -> Model:
        """The model whose logit is that of one of more than two classes against the rest, as explanations ask it.

        Raises:
            ModelError: It parts no class of that name.
        """
        known = self.info.several.names if self.info.several else self.info.classes
        if self.info.several is None or name not in known:
            raise ModelError(
                f"no class {name!r} to ask for",
                where=self.info.name,
                expected=f"one of {', '.join(known)}",
                remedy="name one of these"
                if self.info.several
                else "leave it out: a model of two classes has one logit",
            )
        from torch import nn

        from tumortrace.models.layers import LogOdds

        network = copy(self.network)
        network._modules = dict(network._modules)  # the weights stay shared, the head is another
        layers = cast(nn.Sequential, network.top)[:-1]
        network.top = nn.Sequential(*layers, LogOdds([other == name for other in known]))
        return Model(self.info, network, self.device, self.detector, folder=self.folder)

    def logits(self, images: np.ndarray, rows: Rows = None, **how: Unpack[How]) -> np.ndarray:
        """Uncalibrated logits of the positive class, float64, shape (number of rows,); arguments as for `assess`."""
        return self._outputs(images, rows, embed=False, **how).logit

    def embedded(self, images: np.ndarray, rows: Rows = None, **how: Unpack[How]) -> Outputs:
        """Logits, and the features that `OodDetector` measures, from one pass."""
        return self._outputs(images, rows, embed=True, **how)

    def predict(self, images: np.ndarray, rows: Rows = None, **how: Unpack[How]) -> np.ndarray:
        """Calibrated probabilities of the positive class, float64, range [0, 1]; arguments as for `assess`."""
        return self.assess(images, rows, **how).probability

    def assess(self, images: np.ndarray, rows: Rows = None, **how: Unpack[How]) -> Assessment:
        """Everything that the model says of images, from one pass.

        Args:
            images: uint8, shape (N, H, W, 3); H and W are the bundle's `patch_size`. May be memory-mapped.
            rows: Which of the images, in which order; all when None.
            **how: `description`, text of a progress bar; `prepared`, whether the images have been through
                `Preprocessing.prepare` already; `batch`, how many are computed at once, in place of `batch_of`.

        Raises:
            ModelError: The images have another shape or type.
        """
        return self.judge(self.outputs(images, rows, **how))

    def outputs(self, images: np.ndarray, rows: Rows = None, **how: Unpack[How]) -> Outputs:
        """What `judge` takes of images; arguments as for `assess`."""
        scored = self.detector is not None and self.info.ood is not None
        return self._outputs(images, rows, embed=scored, **how)

    def batch_of(self, images: int) -> int:
        """How many of so many images are computed at once: to the last bit, what comes out depends on it."""
        size = prediction_batch(self.info.preprocessing.output_size(self.info.patch_size))
        if self.runtime is not None:
            return size
        return min(size, max(SMALLEST_BATCH, -(-images // 2)))  # few images are two batches too, on every machine

    def judge(self, outputs: Outputs) -> Assessment:
        """The assessment of images whose logits, and features where the bundle scores these, are known already."""
        logit, features, classes = outputs
        probability = self.info.calibration.apply(logit)
        prediction, decision = self.info.decide(probability)
        several = self.info.several
        by_class = None if several is None else several.columns(classes, probability)
        if self.detector is None or self.info.ood is None:
            return Assessment(logit, probability, prediction, decision, by_class=by_class)
        score = self.detector.score(features, self.info.ood.limit) if len(features) else np.empty(0)
        components = None
        if self.drift is not None:
            components = self.detector.components(features) if len(features) else np.empty((0, 0), np.float32)
        return Assessment(logit, probability, prediction, decision, score, score <= 1, by_class, components)

    def judge_set(
        self, components: np.ndarray | None, group: pd.Series | None = None, images: int | None = None
    ) -> tuple[Drift | None, str]:
        """How far a set of images as a whole lies from the training images, and that in a line.

        Args:
            components: Of its images, from `assess`, shape (N, K).
            group: Slide or patient of each; None where not known, which is taken for one slide.
            images: Of the whole set, where the components are of those that `evaluation.drift.sampled` takes of it.

        Returns:
            None where the bundle keeps no reference.
        """
        if self.drift is None or components is None:
            of_slides = self.runtime is None and self.network.takes_features
            return None, NOT_OF_SLIDES if of_slides else NO_REFERENCE
        drift = self.drift.judge(components, group, images)
        return drift, drift_line(drift)

    def require_shape(self, images: np.ndarray, size: tuple[int, int] | None = None) -> None:
        """Refuse what are not uint8 images of `size` (height, width), by default the bundle's `patch_size`.

        Raises:
            ModelError: The images have another shape or type.
        """
        height, width = size or self.info.patch_size
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1:] != (height, width, 3):
            raise ModelError(
                f"images of shape {images.shape} and type {images.dtype}",
                expected=f"uint8 images of shape (N, {height}, {width}, 3)",
                remedy="resize with tumortrace.images.decoding.fit",
            )

    def require_preparation(self, preparation: Mapping[str, object] | None, where: object) -> None:
        """Refuse images that were not prepared as the training images were.

        Args:
            preparation: A cohort's, or None for images as they are.
            where: Names the images.

        Raises:
            ModelError: They differ.
        """
        wanted, actual = ((record or {}).get("preprocessing") for record in (self.info.preparation, preparation))
        if wanted != actual:
            raise ModelError(
                f"images {_told(actual)}",
                where=where,
                expected=f"images {_told(wanted)}, as model {self.info.name} was trained on",
                remedy=_way_to(wanted, actual),
            )

    def save(self, folder: Path) -> Model:
        """Write the bundle; returns the model with its folder and the hashes of its files.

        A generator of super-resolution is copied into the bundle.
        """
        from safetensors.torch import save_file

        steps = self.info.preprocessing
        if steps.super_resolution is not None and steps.super_resolution.weights:
            source = Path(steps.super_resolution.weights)
            copy = folder / f"{GENERATOR}{source.suffix}"
            with replacing(copy) as temporary:
                shutil.copyfile(source, temporary)
            steps = _with_generator(steps, weights=copy.name, sha256=sha256(copy))
        weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        with replacing(folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        ood = self.info.ood
        if self.detector is not None and ood is not None:
            ood = ood.model_copy(update={"sha256": self.detector.save(folder)})
        drift = None if self.drift is None else self.drift.save(folder)
        changes = {"preprocessing": steps, "weights_sha256": sha256(folder / WEIGHTS), "ood": ood, "drift": drift}
        info = self.info.model_copy(update=changes)
        write_json(ModelInfo.file(folder), info.model_dump(mode="json"))
        return type(self)(info, self.network, self.device, self.detector, drift=self.drift, folder=folder)

    def _outputs(
        self,
        images: np.ndarray,
        rows: Rows,
        *,
        embed: bool,
        description: str | None = None,
        prepared: bool = False,
        batch: int | None = None,
    ) -> Outputs:
        self.require_shape(images, self.info.graph_size if prepared else None)
        rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        size = batch or self.batch_of(len(rows))
        starts: Iterable[int] = range(0, len(rows), size)
        if description:
            starts = track(starts, description)
        batches = (images[rows[start : start + size]] for start in starts)
        ready = (np.ascontiguousarray(batch) if prepared else self.info.prepare(batch) for batch in batches)
        if self.runtime is not None:  # it has threads of its own
            return _joined(map(self.runtime, ready), len(rows), self.info)
        from tumortrace.models.streams import streams

        with streams(self.device, max(1, -(-len(rows) // size))) as several:  # cores are divided among the batches
            return _joined(several.map(partial(self._batch, embed=embed), ready), len(rows), self.info)

    def _batch(self, images: np.ndarray, embed: bool) -> Outputs:
        with self.computing():
            return self._computed(images, embed)

    def _computed(self, images: np.ndarray, embed: bool) -> Outputs:
        import torch

        tensor = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        pixels = self.info.preprocessing.normalise(self.info.preprocessing.pixels(tensor))
        views = self.info.views
        logits = torch.zeros(len(images), dtype=torch.float64)  # not on every device
        classes = torch.zeros(len(images), len(self.info.sides), dtype=torch.float64)
        features: list[torch.Tensor] = []
        for view in views.each(pixels):
            inputs = view.contiguous(memory_format=torch.channels_last)
            maps = self.network.maps(inputs)
            if self.info.several is None:
                logit = self.network.from_maps(maps)
            else:
                logit, apart = self.network.with_classes(maps)
                classes += apart.float().cpu().double()
            logits += logit.float().cpu().double()
            if embed:
                features.append(likeness_features(maps, view).cpu())
        total = reduce(torch.add, features) if embed else torch.zeros(len(images), 0)
        return Outputs(*((part / len(views)).numpy() for part in (logits, total, classes)))


def _joined(parts: Iterable[Outputs], count: int, info: ModelInfo) -> Outputs:
    """Those of batches, `count` images in all, in one block: many small ones keep freed memory in pieces."""
    whole, done = None, 0
    for part in parts:
        whole = whole or Outputs(*(np.empty((count, *values.shape[1:]), values.dtype) for values in part))
        for place, values in zip(whole, part, strict=True):
            place[done : done + len(values)] = values
        done += len(part.logit)
    return whole or Outputs(np.empty(0), np.empty((0, 0), np.float32), np.empty((0, len(info.sides))))


def model_of(info: ModelInfo, network: Network, device: torch.device, *rest: OodDetector | None, **more: Any) -> Model:
    """The model of a network: of images, or of slides where it takes features; arguments as for `Model`."""
    if not network.takes_features:
        return Model(info, network, device, *rest, **more)
    from tumortrace.models.bag_model import BagModel  # which is a model itself

    return BagModel(info, network, device, *rest, **more)


def _told(steps: object) -> str:
    if not isinstance(steps, Mapping) or not steps:
        return "as they are"
    if "body" in steps:
        return f"as features of {steps['body'] or 'a body not stated'}, {steps['numbers']} numbers a tile, weights " + (
            str(steps["weights"]) or "not stated"
        )
    return "prepared with " + ", ".join(
        f"{name} {value}" for name, value in steps.items() if value not in (None, "none")
    )


def _way_to(wanted: object, actual: object) -> str:
    """How to get what a model wants, of what there is: records of preprocessing, or None."""
    if isinstance(wanted, Mapping) and "body" in wanted:
        return "make features by that body with `tumortrace embed-slides`"
    if isinstance(actual, Mapping) and "body" in actual:
        return "name the folder of images, or a run of recipe slide-attention"
    return "make them so with `tumortrace prepare`" if wanted else "give the images from before `prepare`"


def _with_generator(steps: Preprocessing, **changes: str) -> Preprocessing:
    enlarger = steps.super_resolution
    return steps.model_copy(update={"super_resolution": enlarger and enlarger.model_copy(update=changes)})


def find_bundle(path: str | Path) -> Path:
    """The bundle's folder, given it, the exported file in it or the run folder around it.

    Raises:
        ModelError: There is none.
    """
    path = Path(path)
    for folder in (path.parent if path.name in EXPORTED else path, Run(path).model_folder):
        if ModelInfo.exists(folder):
            return folder
    missing = "a run that has no model yet" if RunRecord.exists(path) else "no model there"
    raise ModelError(
        missing,
        where=path,
        expected=f"a run folder or a bundle with {DESCRIPTION}",
        remedy="name one, or finish the run",
    )


def load_model(
    path: str | Path, *, device: str = "auto", backend: Backend | None = "torch", slides: bool = False
) -> Model:
    """Load a model from a run folder or bundle.

    Args:
        path: Run folder, or the folder `model/` in it.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        backend: "torch", or what computes logits instead, the same to 1e-5: "onnx" or "openvino", where the bundle
            has been exported (`tumortrace export`), or "auto" for ONNX Runtime where it has been and torch elsewhere.
            "int8", after `export --int8`, is further away, and quicker on some machines. Without torch it is not even
            imported, as long as nobody asks for the network. None is torch, but for a path that names an exported file,
            and for a bundle that holds nothing else.
        slides: Whether a model of slides will do, which takes features and no images.

    Raises:
        MissingDependencyError: The backend's library is not installed.
        ModelError: There is no bundle, it is damaged, or it does not fit this version.
    """
    folder = find_bundle(path)
    if backend is None:
        backend = EXPORTED.get(Path(path).name) or ("torch" if (folder / WEIGHTS).is_file() else "auto")
    info = ModelInfo.read(folder)
    steps = info.preprocessing
    if steps.super_resolution is not None and steps.super_resolution.weights:
        steps = _with_generator(steps, weights=str(folder / steps.super_resolution.weights))
        info = info.model_copy(update={"preprocessing": steps})
    detector = None if info.ood is None else OodDetector.load(folder, info.ood, REMEDY)
    drift = None if info.drift is None else DriftReference.load(folder, info.drift, REMEDY)
    runtime = open_runtime(
        folder, info, EXPORTED.get(Path(path).name, backend) if backend == "auto" else backend, device
    )
    if runtime is not None:
        return Model(info, None, None, detector, drift=drift, folder=folder, runtime=runtime)
    network = _read_network(folder, info)
    if network.takes_features and not slides:
        raise ModelError(
            "a model of slides, which takes features of their tiles and no images",
            where=path,
            expected="a model of images",
            remedy="evaluate, predict and explain take it, with a folder that `tumortrace embed-slides` made",
        )
    return model_of(info, network, resolve_device(device), detector, drift=drift, folder=folder)


def described(path: str | Path) -> Model:
    """A model of which nothing is read but what `model.json` says, for who does not predict; as `load_model`."""
    folder = find_bundle(path)
    return Model(ModelInfo.read(folder), None, None, folder=folder)


def _read_network(folder: Path, info: ModelInfo) -> Network:
    """The network of a bundle.

    Raises:
        ModelError: Its weights are damaged or do not fit it.
    """
    from safetensors.torch import load_file

    from tumortrace.models.architecture import build_network

    weights, chosen = folder / WEIGHTS, info.architecture
    require_sha256(weights, info.weights_sha256, DESCRIPTION, REMEDY)
    network = build_network(chosen.name, info.preprocessing.output_size(info.patch_size), chosen.arguments, info.sides)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"the weights do not fit the network ({line})", where=weights, remedy=REMEDY) from error
    return network
