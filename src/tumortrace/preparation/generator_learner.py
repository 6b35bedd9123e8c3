"""ESRGAN's generator and a discriminator while they learn, resumable to the bit."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.errors import RunError
from tumortrace.images.super_resolution import downsample, restoration_quality, run_generator
from tumortrace.models.checkpoint import load_checkpoint, load_optimiser, optimiser_tensors, save_checkpoint
from tumortrace.models.device import keep_memory
from tumortrace.models.streams import small_as_zero
from tumortrace.records.progress import progress_bar
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.record import Open

CHECKPOINT_SECONDS = 60
WARM_UP = 50  # steps over which the learning rate rises: full steps at once would undo the start as interpolation


@dataclass(frozen=True)
class Settings:
    """The arguments of `learn_super_resolution` that decide what is learnt, and the digest of its data."""

    scale: int
    steps: int
    blocks: int
    filters: int
    batch_size: int
    crop: int
    learning_rate: float
    adversarial_share: float
    adversarial_weight: float
    seed: int
    data: str = ""


@dataclass
class State:
    """How far the learning has come: steps, seconds, pixel, adversarial and discriminator loss of each step, and the
    quality at the end of the part without adversarial loss."""

    step: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    pixel_loss_alone: Open | None = None


class Learner:
    """Generator and discriminator while they learn. Random state follows from (seed, step), all else is in `state`.

    Args:
        images: uint8, shape (N, H, W, 3).
        rows: Which of them to learn from.
        checkpoint: File to resume from.
        settings: What decides the outcome.
        device: Where to compute.
    """

    def __init__(
        self, images: np.ndarray, rows: np.ndarray, checkpoint: Path, settings: Settings, device: torch.device
    ) -> None:
        keep_memory()
        self.images, self.rows, self.checkpoint = images, rows, checkpoint
        self.settings, self.scale, self.device = settings, settings.scale, device
        self.pixel_steps = settings.steps - round(settings.steps * settings.adversarial_share)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.generator = ESRGAN(num_filters=settings.filters, num_blocks=settings.blocks, scale=self.scale)
            self.discriminator = _discriminator()
        _start_as_interpolation(self.generator)
        self.optimisers = {}
        for name in ("generator", "discriminator"):
            network = getattr(self, name).to(self.device)
            self.optimisers[name] = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.state = State()

    def run(self, held_out: np.ndarray) -> None:
        """Take the steps that are left; `held_out` are measured once before the adversarial part."""
        state, steps = self.state, self.settings.steps
        started = saved = time.monotonic()
        with small_as_zero(), progress_bar() as bar:
            task = bar.add_task("learning super-resolution", total=steps, completed=state.step)
            while state.step < steps:
                if state.step == self.pixel_steps:
                    state.pixel_loss_alone = restoration_quality(self._enlarge, held_out, scale=self.scale)
                losses = self._step()
                state.losses.append(losses)
                state.step += 1
                bar.update(task, advance=1, description=f"learning super-resolution, pixel loss {losses[0]:.4f}")
                if time.monotonic() - saved > CHECKPOINT_SECONDS or state.step == steps:
                    state.seconds += time.monotonic() - started
                    self._save()
                    started = saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if not self.checkpoint.exists():
            return
        tensors, saved = load_checkpoint(self.checkpoint)
        settings = asdict(self.settings)
        if saved["settings"] != settings:
            changed = [name for name in settings if saved["settings"].get(name) != settings[name]]
            raise RunError(
                f"an unfinished learning that differs in {', '.join(changed)}",
                where=self.checkpoint,
                remedy="call it with the same arguments to finish it, or remove that file",
            )
        self.state = State(**saved["state"])
        for name, optimiser in self.optimisers.items():
            network = getattr(self, name)
            network.load_state_dict({key: tensors[f"{name}.{key}"] for key in network.state_dict()})
            load_optimiser(optimiser, tensors, f"adam.{name}")

    def record(self) -> Open:
        """How the generator was learnt: settings, losses averaged over fiftieths of the steps, time."""
        losses = np.asarray(self.state.losses)
        ends = np.unique(np.linspace(0, len(losses), 51).round().astype(int))[1:]
        names = ("pixel", "adversarial", "discriminator")
        means = [part.mean(axis=0).tolist() for part in np.split(losses, ends[:-1])]
        return {
            "settings": {name: value for name, value in asdict(self.settings).items() if name != "data"},
            "data_digest": self.settings.data,
            "parameters": sum(weights.numel() for weights in self.generator.parameters()),
            "pixel_steps": self.pixel_steps,
            "losses": [
                {"step": int(end), **dict(zip(names, mean, strict=True))} for end, mean in zip(ends, means, strict=True)
            ],
            "held_out_pixel_loss_alone": self.state.pixel_loss_alone,
            "seconds": round(self.state.seconds, 1),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "use": RESEARCH_USE,
        }

    def _step(self) -> list[float]:
        """One gradient step; pixel, adversarial and discriminator loss."""
        small, large = self._pairs()
        self._set_rates()
        restored = self.generator(small)
        loss = pixel = functional.l1_loss(restored, large)
        adversarial, judged = torch.zeros(()), torch.zeros(())
        if self.state.step >= self.pixel_steps:
            judged = _relativistic(self.discriminator(large), self.discriminator(restored.detach()))
            self._descend("discriminator", judged)
            self.discriminator.requires_grad_(False)  # spares its gradients in the generator's turn
            adversarial = _relativistic(self.discriminator(restored), self.discriminator(large))
            self.discriminator.requires_grad_(True)
            loss = pixel + self.settings.adversarial_weight * adversarial
        self._descend("generator", loss)
        return [float(pixel.detach()), float(adversarial.detach()), float(judged.detach())]

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    def _set_rates(self) -> None:
        done = min(1.0, self.state.step / max(1, self.pixel_steps))
        warm = min(1.0, (self.state.step + 1) / WARM_UP)
        rate = self.settings.learning_rate * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)
        self.optimisers["generator"].param_groups[0]["lr"] = rate

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Random crops, turned and mirrored, and their downsampled versions; float32 in [0, 1], (N, 3, H, W)."""
        draw = np.random.default_rng([self.settings.seed, self.state.step])
        height, width = self.images.shape[1:3]
        side = min(self.settings.crop, height, width) // self.scale * self.scale
        crops = []
        for row in draw.choice(self.rows, self.settings.batch_size):
            top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
            crop = np.rot90(self.images[row, top : top + side, left : left + side], int(draw.integers(4)))
            crops.append(crop[:, ::-1] if draw.integers(2) else crop)
        large = np.stack(crops)
        small = downsample(large, self.scale)
        of_small, of_large = (
            torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2) / 255 for crops in (small, large)
        )
        return of_small, of_large

    def _enlarge(self, images: np.ndarray) -> np.ndarray:
        return run_generator(self.generator, images, self.scale, self.device)

    def _save(self) -> None:
        tensors: dict[str, Tensor] = {}
        for name, optimiser in self.optimisers.items():
            tensors |= {f"{name}.{key}": value for key, value in getattr(self, name).state_dict().items()}
            tensors |= optimiser_tensors(optimiser, f"adam.{name}")
        save_checkpoint(self.checkpoint, tensors, {"settings": asdict(self.settings), "state": asdict(self.state)})


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
