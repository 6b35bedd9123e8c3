"""A super-resolution generator learnt on a cohort's own patches.

The generator is ESRGAN's residual-in-residual dense network (Wang et al. 2018), learnt from pairs of a patch and its
downsampled version: first by mean absolute error alone, then with a small adversarial loss beside it. It is then
used on patches that are not downsampled, at a finer resolution than it has seen, where it may turn texture into nuclei
that are not there.
"""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.errors import DataError, RunError, SplitError
from tumortrace.images.super_resolution import (
    SuperResolution,
    check_images,
    downsample,
    restoration_quality,
    run_generator,
)
from tumortrace.models.checkpoint import load_checkpoint, save_checkpoint
from tumortrace.models.device import keep_memory, resolve_device
from tumortrace.records.files import replacing, sha256, write_json
from tumortrace.records.progress import progress_bar
from tumortrace.records.provenance import versions

CHECKPOINT_SECONDS = 60
WARM_UP = 50  # steps over which the learning rate rises: full steps at once would undo the start as interpolation
HELD_OUT = 300  # patches to measure on, at most, where the caller names none


def learn_super_resolution(
    images: np.ndarray,
    rows: np.ndarray,
    out: Path,
    *,
    held_out: np.ndarray | None = None,
    scale: int = 4,
    steps: int = 1500,
    blocks: int = 1,
    filters: int = 24,
    batch_size: int = 8,
    crop: int = 64,
    learning_rate: float = 1e-3,
    adversarial_share: float = 0.2,
    adversarial_weight: float = 0.002,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Learn a generator, write its weights, and beside them a record of how it was learnt and how good it is.

    The defaults are for two CPU cores and about ten minutes; the published ESRGAN has 23 blocks and 64 filters and
    learns for days on a GPU. An interrupted call is taken up where it stopped when it is made again with the same
    arguments; it ends bit for bit where an undisturbed one does (CPU, same machine).

    Args:
        images: uint8, shape (N, H, W, 3), a memory map will do.
        rows: Which of them to learn from. They must come from the training split alone: a generator that has seen
            test images makes the test worthless.
        out: `.safetensors` file to write; the record has the same name and ends in `.json`.
        held_out: Rows to measure on, best of other slides; default a tenth of `rows`, which are then not learnt from.
        scale: 2, 4 or 8.
        steps: Gradient steps in all.
        blocks: Residual-in-residual dense blocks.
        filters: Channels between the blocks.
        batch_size: Crops per step.
        crop: Side of a crop in pixels, before it is downsampled.
        learning_rate: Of Adam at the start; falls to a tenth along a cosine until the adversarial part, then stays.
        adversarial_share: Share of the steps, the last ones, with adversarial loss; 0 leaves it out.
        adversarial_weight: Weight of that loss; the mean absolute error of pixels in [0, 1] has weight 1.
        seed: Same seed, same generator.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        `out`, which `SuperResolution(weights=...)` takes.

    Raises:
        DataError: Images, rows or settings that nothing can be learnt from.
        SplitError: A row both learnt from and held out.
        RunError: There is a finished generator already, or an unfinished one of other settings or images.

    Example:
        >>> import tempfile
        >>> patches = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
        >>> out = Path(tempfile.mkdtemp()) / "generator.safetensors"
        >>> path = learn_super_resolution(patches, np.arange(8), out, steps=2, filters=4, batch_size=2, crop=16)
        >>> SuperResolution(weights=str(path))(patches[:1]).shape
        (1, 128, 128, 3)
    """
    out = Path(out)
    settings: dict[str, Any] = {
        "scale": scale,
        "steps": steps,
        "blocks": blocks,
        "filters": filters,
        "batch_size": batch_size,
        "crop": crop,
        "learning_rate": learning_rate,
        "adversarial_share": adversarial_share,
        "adversarial_weight": adversarial_weight,
        "seed": seed,
    }
    _check(images, out, settings)
    rows, held_out = _parts(rows, held_out, len(images), seed)
    settings["data"] = _digest(images, rows, held_out)
    checkpoint, record_file = out.with_suffix(".checkpoint.safetensors"), out.with_suffix(".json")
    if not checkpoint.exists() and (found := [file for file in (out, record_file) if file.exists()]):
        raise RunError("this file is there already", where=found[0], remedy="name another one, or remove it")
    learner = Learner(images, rows, checkpoint, settings, resolve_device(device))
    learner.resume()
    learner.run(np.asarray(images[held_out]))
    with replacing(out) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in learner.generator.state_dict().items()}, temporary)
    quality = restoration_quality(SuperResolution(scale=scale, weights=str(out)), images[held_out], scale=scale)
    record = learner.record() | {
        "images": {"learnt_from": len(rows), "held_out": len(held_out)},
        "held_out": quality,
        "sha256": sha256(out),
    }
    write_json(record_file, record)
    checkpoint.unlink(missing_ok=True)
    return out


class Learner:
    """Generator and discriminator while they learn. Random state follows from (seed, step), all else is in `state`.

    Args:
        images: uint8, shape (N, H, W, 3).
        rows: Which of them to learn from.
        checkpoint: File to resume from.
        settings: The arguments of `learn_super_resolution`, and the digest of its data.
        device: Where to compute.
    """

    def __init__(
        self, images: np.ndarray, rows: np.ndarray, checkpoint: Path, settings: dict[str, Any], device: torch.device
    ) -> None:
        keep_memory()
        self.images, self.rows, self.checkpoint = images, rows, checkpoint
        self.settings, self.scale, self.device = settings, settings["scale"], device
        self.pixel_steps = settings["steps"] - round(settings["steps"] * settings["adversarial_share"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings["seed"])
            self.generator = ESRGAN(num_filters=settings["filters"], num_blocks=settings["blocks"], scale=self.scale)
            self.discriminator = _discriminator()
        _start_as_interpolation(self.generator)
        self.optimisers = {}
        for name in ("generator", "discriminator"):
            network = getattr(self, name).to(self.device)
            self.optimisers[name] = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.state: dict[str, Any] = {"step": 0, "seconds": 0.0, "losses": [], "pixel_loss_alone": None}

    def run(self, held_out: np.ndarray) -> None:
        """Take the steps that are left; `held_out` are measured once before the adversarial part."""
        state, steps = self.state, self.settings["steps"]
        started = saved = time.monotonic()
        with progress_bar() as bar:
            task = bar.add_task("learning super-resolution", total=steps, completed=state["step"])
            while state["step"] < steps:
                if state["step"] == self.pixel_steps:
                    state["pixel_loss_alone"] = restoration_quality(self._enlarge, held_out, scale=self.scale)
                losses = self._step()
                state["losses"].append(losses)
                state["step"] += 1
                bar.update(task, advance=1, description=f"learning super-resolution, pixel loss {losses[0]:.4f}")
                if time.monotonic() - saved > CHECKPOINT_SECONDS or state["step"] == steps:
                    state["seconds"] += time.monotonic() - started
                    self._save()
                    started = saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if not self.checkpoint.exists():
            return
        tensors, saved = load_checkpoint(self.checkpoint)
        if saved["settings"] != self.settings:
            changed = [name for name in self.settings if saved["settings"].get(name) != self.settings[name]]
            raise RunError(
                f"an unfinished learning that differs in {', '.join(changed)}",
                where=self.checkpoint,
                remedy="call it with the same arguments to finish it, or remove that file",
            )
        self.state = saved["state"]
        for name, optimiser in self.optimisers.items():
            network = getattr(self, name)
            network.load_state_dict({key: tensors[f"{name}.{key}"] for key in network.state_dict()})
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"adam.{name}."):
                    index, moment = key.split(".")[2:]
                    moments.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})

    def record(self) -> dict[str, Any]:
        """How the generator was learnt: settings, losses averaged over fiftieths of the steps, time."""
        losses = np.asarray(self.state["losses"])
        ends = np.unique(np.linspace(0, len(losses), 51).round().astype(int))[1:]
        names = ("pixel", "adversarial", "discriminator")
        means = [part.mean(axis=0).tolist() for part in np.split(losses, ends[:-1])]
        return {
            "settings": {name: value for name, value in self.settings.items() if name != "data"},
            "data_digest": self.settings["data"],
            "parameters": sum(each.numel() for each in self.generator.parameters()),
            "pixel_steps": self.pixel_steps,
            "losses": [
                {"step": int(end), **dict(zip(names, mean, strict=True))} for end, mean in zip(ends, means, strict=True)
            ],
            "held_out_pixel_loss_alone": self.state["pixel_loss_alone"],
            "seconds": round(self.state["seconds"], 1),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "use": "research use only, not a medical device",
        }

    def _step(self) -> list[float]:
        """One gradient step; pixel, adversarial and discriminator loss."""
        small, large = self._pairs()
        self._set_rates()
        restored = self.generator(small)
        loss = pixel = functional.l1_loss(restored, large)
        adversarial, judged = torch.zeros(()), torch.zeros(())
        if self.state["step"] >= self.pixel_steps:
            judged = _relativistic(self.discriminator(large), self.discriminator(restored.detach()))
            self._descend("discriminator", judged)
            self.discriminator.requires_grad_(False)  # spares its gradients in the generator's turn
            adversarial = _relativistic(self.discriminator(restored), self.discriminator(large))
            self.discriminator.requires_grad_(True)
            loss = pixel + self.settings["adversarial_weight"] * adversarial
        self._descend("generator", loss)
        return [float(pixel.detach()), float(adversarial.detach()), float(judged.detach())]

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    def _set_rates(self) -> None:
        done = min(1.0, self.state["step"] / max(1, self.pixel_steps))
        warm = min(1.0, (self.state["step"] + 1) / WARM_UP)
        rate = self.settings["learning_rate"] * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)
        self.optimisers["generator"].param_groups[0]["lr"] = rate

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Random crops, turned and mirrored, and their downsampled versions; float32 in [0, 1], (N, 3, H, W)."""
        draw = np.random.default_rng([self.settings["seed"], self.state["step"]])
        height, width = self.images.shape[1:3]
        side = min(self.settings["crop"], height, width) // self.scale * self.scale
        crops = []
        for row in draw.choice(self.rows, self.settings["batch_size"]):
            top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
            crop = np.rot90(self.images[row, top : top + side, left : left + side], int(draw.integers(4)))
            crops.append(crop[:, ::-1] if draw.integers(2) else crop)
        large = np.stack(crops)
        small = downsample(large, self.scale)
        of_small, of_large = (
            torch.from_numpy(each).to(self.device).permute(0, 3, 1, 2) / 255 for each in (small, large)
        )
        return of_small, of_large

    def _enlarge(self, images: np.ndarray) -> np.ndarray:
        return run_generator(self.generator, images, self.scale, self.device)

    def _save(self) -> None:
        tensors: dict[str, Tensor] = {}
        for name, optimiser in self.optimisers.items():
            tensors |= {f"{name}.{key}": value for key, value in getattr(self, name).state_dict().items()}
            for index, moments in optimiser.state_dict()["state"].items():
                tensors |= {f"adam.{name}.{index}.{key}": value for key, value in moments.items()}
        save_checkpoint(self.checkpoint, tensors, {"settings": self.settings, "state": self.state})


def _discriminator() -> nn.Sequential:
    """Judges overlapping pieces of a picture, each by one number (Isola et al. 2017)."""
    layers: list[nn.Module] = []
    for channels_in, channels_out in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))


def _relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """Small when `higher` is judged more real than `lower` is on average (Jolicoeur-Martineau 2018)."""
    return (functional.softplus(lower.mean() - higher).mean() + functional.softplus(lower - higher.mean()).mean()) / 2


@torch.no_grad()
def _start_as_interpolation(generator: ESRGAN) -> None:
    """Make three channels carry the colours through, so that learning starts from bilinear interpolation.

    From random weights the first thousand steps are spent on learning to enlarge at all.
    """
    point = torch.zeros(3, 3)
    point[1, 1] = 1
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4  # after doubling by repetition, this is bilinear interpolation
    body = generator.model[1].sub[-1]
    body.weight[:3], body.bias[:3] = 0, 0
    previous: nn.Module | None = None
    for layer in generator.model:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            layer.weight[:3], layer.bias[:3] = 0, 0
            kernel = torch.outer(tent, tent) if isinstance(previous, nn.Upsample) else point
            for colour in range(3):
                layer.weight[colour, colour] = kernel
        previous = layer


def _check(images: np.ndarray, out: Path, settings: dict[str, Any]) -> None:
    check_images(images)
    if out.suffix != ".safetensors":
        raise DataError(f"a file ending in {out.suffix!r}", where=out, expected=".safetensors", remedy="name it so")
    if settings["scale"] not in (2, 4, 8):
        raise DataError(f"scale {settings['scale']}", expected="2, 4 or 8", remedy="use 4")
    for name, least in {"steps": 1, "blocks": 1, "filters": 3, "batch_size": 1, "crop": 16}.items():
        if settings[name] < least:
            raise DataError(f"{name} {settings[name]}", expected=f"{least} or more", remedy="leave it out")
    if not 0 <= settings["adversarial_share"] <= 1:
        raise DataError(f"adversarial_share {settings['adversarial_share']}", expected="0 to 1", remedy="leave it out")
    if min(images.shape[1:3]) < 16:
        raise DataError(f"images of {images.shape[1]}x{images.shape[2]} pixels", expected="16x16 or larger")


def _parts(rows: np.ndarray, held_out: np.ndarray | None, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to measure on, checked to be there and disjoint."""
    rows = np.asarray(rows, np.int64)
    if held_out is None:
        drawn = np.random.default_rng(seed).permutation(rows)
        held_out, rows = np.split(drawn, [min(HELD_OUT, max(1, len(rows) // 10))])
    held_out = np.asarray(held_out, np.int64)
    for name, part in (("to learn from", rows), ("held out", held_out)):
        if part.ndim != 1 or not len(part) or part.min() < 0 or part.max() >= count:
            raise DataError(f"no usable rows {name}", expected=f"numbers from 0 to {count - 1}, at least two in all")
    if both := len(np.intersect1d(rows, held_out)):
        raise SplitError(
            f"{both} patches both learnt from and held out", expected="none", remedy="give disjoint `rows`, `held_out`"
        )
    return np.sort(rows), np.sort(held_out)


def _digest(images: np.ndarray, rows: np.ndarray, held_out: np.ndarray) -> str:
    """Tells whether an unfinished learning was of these data: shape, rows, and pixels of a sample of 64."""
    digest = hashlib.sha256(repr(images.shape).encode())
    sample = images[rows[np.unique(np.linspace(0, len(rows) - 1, 64).astype(int))]]
    for array in (rows, held_out, sample):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
