"""The model bundle: a few files that hold everything needed to predict, and run no code when loaded.

`weights.safetensors` holds the network's weights, `likeness.safetensors` what training images look like to it, and
`model.json` (see `ModelInfo`) all the rest: architecture, preprocessing, class names, calibration, and the SHA-256 of
the other files, which are checked on loading.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tumortrace.errors import ModelError
from tumortrace.images.geometry import symmetry
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network
from tumortrace.models.assessment import Assessment
from tumortrace.models.description import ModelInfo, read_description
from tumortrace.models.device import keep_memory, prediction_batch, resolve_device
from tumortrace.models.exported import Backend, Runtime, graph_input, open_runtime
from tumortrace.models.likeness import Likeness, embedding, load_likeness, save_likeness
from tumortrace.records.files import replacing, sha256, write_json
from tumortrace.records.progress import track

WEIGHTS, INFO = "weights.safetensors", "model.json"


class Model:
    """A network with its preprocessing and calibration, ready to predict.

    Args:
        info: What `model.json` says.
        network: The network; put into inference mode.
        device: Where it computes.
        likeness: Of images to the training images, where the bundle has it.
    """

    def __init__(
        self, info: ModelInfo, network: nn.Module, device: torch.device, likeness: Likeness | None = None
    ) -> None:
        keep_memory()
        self.info, self.likeness = info, likeness
        self.device = device
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        #: What computes logits and features instead of the network; see `load_model`.
        self.runtime: Runtime | None = None

    def logits(
        self,
        images: np.ndarray,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        description: str | None = None,
        prepared: bool = False,
    ) -> np.ndarray:
        """Uncalibrated logits of the positive class.

        Args:
            images: uint8, shape (N, H, W, 3); H and W are the bundle's `patch_size`. May be memory-mapped.
            rows: Which of the images, in which order; all when None.
            description: Text of a progress bar; none is shown when None.
            prepared: Whether the images have been through `Preprocessing.prepare` already.

        Returns:
            float64, shape (number of rows,).

        Raises:
            ModelError: The images have another shape or type.
        """
        return self._outputs(images, rows, description, prepared, embed=False)[0]

    def embedded(
        self,
        images: np.ndarray,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        description: str | None = None,
        prepared: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Uncalibrated logits, and the features that `Likeness` measures, from one pass; arguments as for `logits`.

        Returns:
            float64, shape (number of rows,), and float32, shape (number of rows, D).
        """
        return self._outputs(images, rows, description, prepared, embed=True)

    def _outputs(
        self,
        images: np.ndarray,
        rows: Sequence[int] | np.ndarray | None,
        description: str | None,
        prepared: bool,
        *,
        embed: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        steps = self.info.preprocessing
        height, width = self.info.patch_size
        if prepared and steps.prepares:
            height, width = steps.prepared_size((height, width))
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1:] != (height, width, 3):
            raise ModelError(
                f"images of shape {images.shape} and type {images.dtype}",
                expected=f"uint8 images of shape (N, {height}, {width}, 3)",
                remedy="resize with tumortrace.images.decoding.fit",
            )
        rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        batch_size = prediction_batch(steps.output_size(self.info.patch_size))
        starts: Any = range(0, len(rows), batch_size)
        if description:
            starts = track(starts, description)
        batches = (images[rows[start : start + batch_size]] for start in starts)
        run = self.runtime
        if run is not None:
            parts = [run(np.ascontiguousarray(b) if prepared else graph_input(self.info, b)) for b in batches]
        else:
            parts = [self._batch(batch if prepared else steps.prepare(batch), embed) for batch in batches]
        if not parts:
            return np.empty(0), np.empty((0, 0), dtype=np.float32)
        logits, features = zip(*parts, strict=True)
        return np.concatenate(logits), np.concatenate(features)

    def predict(
        self, images: np.ndarray, rows: Sequence[int] | np.ndarray | None = None, *, description: str | None = None
    ) -> np.ndarray:
        """Calibrated probabilities of the positive class; arguments as for `logits`.

        Returns:
            float64, shape (number of rows,), range [0, 1].
        """
        return self.assess(images, rows, description=description).probability

    def assess(
        self,
        images: np.ndarray,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        description: str | None = None,
        prepared: bool = False,
    ) -> Assessment:
        """Everything that the model says of images, from one pass; arguments as for `logits`.

        Raises:
            ModelError: The images have another shape or type.
        """
        scored = self.likeness is not None and self.info.ood is not None
        logit, features = self._outputs(images, rows, description, prepared, embed=scored)
        return self.judge(logit, features if scored else None)

    def judge(self, logit: np.ndarray, features: np.ndarray | None = None) -> Assessment:
        """The assessment of images whose logits, and features where the bundle scores these, are known already."""
        probability = self.info.calibration.apply(logit)
        prediction, decision = self.info.decide(probability)
        if features is None or self.likeness is None or self.info.ood is None:
            return Assessment(logit, probability, prediction, decision)
        score = self.likeness.distance(features) / self.info.ood.limit if len(features) else np.empty(0)
        return Assessment(logit, probability, prediction, decision, score, score <= 1)

    def require_preparation(self, preparation: dict[str, Any] | None, where: object) -> None:
        """Refuse images that were not prepared as the training images were.

        Args:
            preparation: A cohort's, or None for images as they are.
            where: Names the images.

        Raises:
            ModelError: They differ.
        """
        wanted = (self.info.preparation or {}).get("preprocessing")
        found = (preparation or {}).get("preprocessing")
        if wanted != found:
            raise ModelError(
                f"images {_told(found)}",
                where=where,
                expected=f"images {_told(wanted)}, as model {self.info.name} was trained on",
                remedy="make them so with `tumortrace prepare`" if wanted else "give the images from before `prepare`",
            )

    @torch.inference_mode()
    def _batch(self, images: np.ndarray, embed: bool) -> tuple[np.ndarray, np.ndarray]:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2)
        pixels = self.info.preprocessing.normalise(self.info.preprocessing.pixels(tensor))
        views = [0]
        if self.info.symmetries:  # a rectangle keeps its shape under half turns and mirrorings alone
            views = list(range(8)) if pixels.shape[2] == pixels.shape[3] else [0, 2, 4, 6]
        total = torch.zeros(len(images), dtype=torch.float64)
        features = torch.zeros(len(images), 0)
        for index in views:
            view = symmetry(pixels, index).contiguous(memory_format=torch.channels_last)
            if embed:
                maps = self.network.maps(view)  # type: ignore[operator]
                logits, found = self.network.from_maps(maps), embedding(maps).cpu()  # type: ignore[operator]
                features = found if index == 0 else features + found
            else:
                logits = self.network(view)
            total += logits.float().cpu().double()  # no float64 on some devices
        return (total / len(views)).numpy(), (features / len(views)).numpy()


def _told(steps: dict[str, Any] | None) -> str:
    if not steps:
        return "as they are"
    said = [f"{name} {value}" for name, value in steps.items() if value not in (None, "none")]
    return "prepared with " + ", ".join(said)


def save_model(folder: Path, info: ModelInfo, network: nn.Module, likeness: Likeness | None = None) -> ModelInfo:
    """Write the bundle into `folder`; returns `info` with the hashes of the other files filled in.

    A generator of super-resolution is copied into it.
    """
    info = info.model_copy(update={"preprocessing": _with_own_generator(folder, info.preprocessing)})
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    info = info.model_copy(update={"weights_sha256": sha256(folder / WEIGHTS)})
    if likeness is not None and info.ood is not None:
        own = info.ood.model_copy(update={"sha256": save_likeness(folder, likeness)})
        info = info.model_copy(update={"ood": own})
    write_json(folder / INFO, info.model_dump(mode="json"))
    return info


def _with_own_generator(folder: Path, steps: Preprocessing) -> Preprocessing:
    enlarger = steps.super_resolution
    if enlarger is None or not enlarger.weights:
        return steps
    source = Path(enlarger.weights)
    name = "super_resolution" + source.suffix
    with replacing(folder / name) as temporary:
        shutil.copyfile(source, temporary)
    own = enlarger.model_copy(update={"weights": name, "sha256": sha256(folder / name)})
    return steps.model_copy(update={"super_resolution": own})


def _with_whole_path(folder: Path, steps: Preprocessing) -> Preprocessing:
    enlarger = steps.super_resolution
    if enlarger is None or not enlarger.weights:
        return steps
    found = enlarger.model_copy(update={"weights": str(folder / enlarger.weights)})
    return steps.model_copy(update={"super_resolution": found})


def find_bundle(path: str | Path) -> Path:
    """The bundle's folder, given it or the run folder around it.

    Raises:
        ModelError: There is none.
    """
    for folder in (Path(path), Path(path) / "model"):
        if (folder / INFO).is_file():
            return folder
    found = "a run that has no model yet" if (Path(path) / "run.json").is_file() else "no model there"
    raise ModelError(
        found, where=path, expected=f"a run folder or a bundle with {INFO}", remedy="name one, or finish the run"
    )


def load_model(path: str | Path, *, device: str = "auto", backend: Backend = "torch") -> Model:
    """Load a model from a run folder or bundle.

    Args:
        path: Run folder, or the folder `model/` in it.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        backend: "torch", or what computes logits instead, the same to 1e-5: "onnx" or "openvino", where the bundle
            has been exported (`tumortrace export`), or "auto" for ONNX Runtime where it has been and torch elsewhere.

    Raises:
        MissingDependencyError: The backend's library is not installed.
        ModelError: There is no bundle, it is damaged, or it does not fit this version.
    """
    folder = find_bundle(path)
    remedy = "copy the bundle again from where it came"
    info = read_description(folder / INFO, remedy)
    if info.positive_class != info.classes[1]:
        raise ModelError(
            f"positive class {info.positive_class!r} is not the second of {info.classes}",
            where=folder / INFO,
            remedy=remedy,
        )
    weights = folder / WEIGHTS
    found = sha256(weights) if weights.is_file() else "no file"
    if found != info.weights_sha256:
        raise ModelError(
            f"SHA-256 is {found}", where=weights, expected=f"{info.weights_sha256} as {INFO} says", remedy=remedy
        )
    info = info.model_copy(update={"preprocessing": _with_whole_path(folder, info.preprocessing)})
    input_size = info.preprocessing.output_size(info.patch_size)
    network = build_network(info.architecture.name, input_size, info.architecture.arguments)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"the weights do not fit the network ({line})", where=weights, remedy=remedy) from error
    likeness = None if info.ood is None else load_likeness(folder, info.ood, remedy)
    model = Model(info, network, resolve_device(device), likeness)
    model.runtime = open_runtime(folder, info, backend, model.device)
    return model
