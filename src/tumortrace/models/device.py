"""What this machine computes on, and how."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tumortrace.errors import ModelError

if TYPE_CHECKING:
    import torch


def resolve_device(device: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is there.

    Raises:
        ModelError: The device is not there.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device {device!r} is not available here", expected="auto, cpu, cuda or mps", remedy="use --device auto"
        ) from error
    return found


def on_cpu(device: str) -> bool:
    """Whether "auto", "cpu", "cuda" and so on stand for the CPU here, told without torch where that can be seen.

    Example:
        >>> on_cpu("cpu")
        True
    """
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")
    if device == "auto" and sys.platform == "linux" and not any(Path(driver).exists() for driver in drivers):
        return True
    return device == "cpu" or resolve_device(device).type == "cpu"


def threads() -> int:
    """How many threads compute: as many as torch has where it is loaded, else as `OMP_NUM_THREADS` says, else cores."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, int(asked)) if asked.isdigit() else cores


def fast_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 in hardware; emulated, it is some twenty times slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn "auto", "32" or "bf16" into Lightning's name for it; auto takes bfloat16 where the hardware has it."""
    names = {"32": "32-true", "bf16": "bf16-mixed"}
    if precision == "auto":
        return names["bf16" if fast_bfloat16(device) else "32"]
    if precision not in names:
        raise ModelError(
            f"precision {precision!r} is not known", expected="auto, 32 or bf16", remedy="use one of these"
        )
    return names[precision]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which a network computes as exactly as `resolve_precision` says; it may be entered again.

    Example:
        >>> import torch
        >>> with autocast(torch.device("cpu"), "bf16-mixed"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    import torch

    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def keep_memory() -> None:
    """Let glibc keep large freed blocks for the next batch; returning them costs CPU training a third of its time."""
    trim_threshold, mmap_threshold = -1, -3
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(mmap_threshold, 32 << 20)  # glibc takes no more
            libc.mallopt(trim_threshold, 1 << 30)


def room_for_images(device: torch.device) -> int:
    """Bytes of images that may stay in an accelerator's memory, half of what is free; 0 elsewhere.

    Example:
        >>> room_for_images(resolve_device("cpu"))
        0
    """
    import torch

    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 0


def prediction_batch(size: tuple[int, int]) -> int:
    """Images of (height, width) pixels to predict at once: 256 up to 96x96 px, fewer of larger ones.

    Example:
        >>> prediction_batch((96, 96)), prediction_batch((224, 224))
        (256, 47)
    """
    return max(8, min(256, 256 * 96 * 96 // (size[0] * size[1])))
