"""Several processes that train one network together, on the GPUs or cores of one machine or of several.

Each computes some of the parts into which a batch is divided, and all take the same step. What is drawn for a part
follows from seed, epoch, step and part, and gradients are added up in the order of the parts: two processes that
compute two parts do bit for bit what one does (CPU). The first process has opened the data, keeps the records and
finishes the run; the others learn what the task is from it, and end with the training.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, distributed

from tumortrace.errors import RunError
from tumortrace.models.device import resolve_device
from tumortrace.training.task import Patches, Task

CPU = torch.device("cpu")
PATIENCE = timedelta(days=1)  # processes that end are noticed at once; one may open its data long after another
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, as one of them sees them; one alone needs no others.

    Attributes:
        rank: Of this process, from 0.
        count: How many there are.
        device: On which tensors are exchanged.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process keeps the records."""
        return self.rank == 0

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Which items fall to this process.

        Example:
            >>> Ranks(1, 2).of("abcde"), Ranks().of("abcde")
            ('bd', 'abcde')
        """
        return items[self.rank :: self.count]

    def spread(self, items: Sequence[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
        """What `work` makes of all items, in their order, each process doing its own; all of them get all."""
        results = work(self.of(items))
        if self.count == 1:
            return results
        everyone: list[list[Result]] = [[] for _ in range(self.count)]
        with _told():
            distributed.all_gather_object(everyone, results)
        return [everyone[index % self.count][index // self.count] for index in range(len(items))]

    def sum(self, tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        """The sum of each tensor over the processes; None where no process has one.

        Args:
            tensors: float32, None where this process has none.
            like: Tensors of their shapes.
        """
        if self.count == 1:
            return list(tensors)
        terms = [torch.zeros_like(form) if term is None else term for term, form in zip(tensors, like, strict=True)]
        there = torch.tensor([float(term is not None) for term in tensors], device=self.device)
        flat = torch.cat([*(term.to(self.device).reshape(-1) for term in terms), there])
        with _told():
            distributed.all_reduce(flat)
        *sums, there = flat.split([*(term.numel() for term in terms), len(terms)])
        # laid out in memory as before, since the order in which products are added up follows from that
        totals = [torch.empty_like(term).copy_(total.view(term.shape)) for term, total in zip(terms, sums, strict=True)]
        return [total if some else None for total, some in zip(totals, there.tolist(), strict=True)]

    def follow(self, tensors: Sequence[Tensor]) -> None:
        """Take over, in place, what the first process has."""
        if self.count > 1:
            with _told():
                for tensor in tensors:
                    distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all have come as far."""
        if self.count > 1:
            with _told():
                distributed.barrier()


ALONE = Ranks()


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that a launcher has started."""

    rank: int
    count: int
    local: int  # among those of its machine


def launched() -> Place | None:
    """Where torchrun or SLURM's srun has put this process; None where it was started by itself, or as the only one.

    Raises:
        RunError: SLURM was not told how many tasks a node has.
    """
    by_srun = os.environ.get("SLURM_NTASKS", "1") != "1" and "SLURM_STEP_ID" in os.environ  # a batch script is no step
    if not (by_srun or _by_torchrun()):
        return None
    # here, as it loads torch's compiler with it, which takes longer than the rest of a training's start
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if _by_torchrun():
        environment: Any = TorchElasticEnvironment()
    elif SLURMEnvironment.detect():
        if "SLURM_NTASKS_PER_NODE" not in os.environ:  # Fabric does not know then which GPU is whose
            raise RunError(
                "a step of SLURM without --ntasks-per-node",
                expected="tasks counted by node",
                remedy="start it with srun --nodes N --ntasks-per-node GPUS",
            )
        environment = SLURMEnvironment()
    else:
        return None
    if environment.world_size() == 1:
        return None
    _ = environment.main_address, environment.main_port  # which puts them where torch looks
    return Place(environment.global_rank(), environment.world_size(), environment.local_rank())


def _by_torchrun() -> bool:
    return distributed.is_available() and distributed.is_torchelastic_launched()


def follows(devices: int) -> bool:
    """Whether a launcher has started this process as another one than the first of `devices`.

    Raises:
        RunError: It has started another number of processes.
    """
    place = launched()
    if place is None:
        return False
    if devices != place.count and (devices > 1 or _by_torchrun()):
        raise RunError(
            f"{place.count} processes of a launcher, and --devices {devices}",
            expected="as many processes as devices",
            remedy=f"add --devices {place.count}, or start the command without the launcher",
        )
    return devices > 1 and place.rank > 0


@contextmanager
def together(task: Task, devices: int) -> Iterator[tuple[Task, Ranks]]:
    """The task on this process's device, and the processes that learn it with this one, the first of them.

    Args:
        task: The task.
        devices: How many processes; those that no launcher has started are started here, on this machine.

    Raises:
        RunError: There are not as many GPUs, or the device is a single one.
        ModelError: The device is not there.
    """
    if devices == 1:
        yield task, ALONE
        return
    place = launched()
    if task.device not in ("auto", "cpu", "cuda"):
        raise RunError(f"--devices {devices} with --device {task.device}", expected="--device auto, cpu or cuda")
    local = devices if place is None else 1
    gpus = torch.cuda.device_count() if resolve_device(task.device).type == "cuda" else 0
    if gpus and local > gpus:
        there = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
        raise RunError(f"--devices {devices}, and {there} here", expected="a GPU for each", remedy=f"--devices {gpus}")
    threads = torch.get_num_threads()
    others: list[subprocess.Popen[bytes]] = []
    try:
        if place is None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
            store = distributed.TCPStore("127.0.0.1", 0, devices, is_master=True, wait_for_workers=False)
            each = max(1, threads // devices)
            torch.set_num_threads(each)
            others = [_started(rank, devices, store.port, each) for rank in range(1, devices)]
            _wait_for(others, store)
            distributed.init_process_group(store=store, rank=0, world_size=devices, timeout=PATIENCE)
        else:
            distributed.init_process_group(timeout=PATIENCE)
        with _told():
            distributed.broadcast_object_list([_portable(task)], 0)
        yield _placed(task, Place(0, devices, 0 if place is None else place.local))
    finally:
        torch.set_num_threads(threads)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(5)
            other.kill()


def follow(learn: Callable[[Task, Ranks], object], place: Place | None = None) -> Path:
    """Take the task from the first process and learn it with it; returns the run folder.

    Args:
        learn: What to do with it.
        place: Where this process stands; None asks the launcher.
    """
    place = place or launched()
    assert place is not None
    if not distributed.is_initialized():
        distributed.init_process_group(timeout=PATIENCE)
    try:
        given: list[Any] = [None]
        with _told():
            distributed.broadcast_object_list(given, 0)
        task = _opened(cast(Task, given[0]))
        learn(*_placed(task, place))
        return task.checkpoints.parent
    finally:
        distributed.destroy_process_group()


def follow_here(rank: int, count: int, port: int) -> None:
    """What a process does that `together` has started: follow, and end quietly with the first one."""
    from tumortrace.training.train import learn

    store = distributed.TCPStore("127.0.0.1", port, count, is_master=False)
    store.set(f"there/{rank}", "")
    distributed.init_process_group(store=store, rank=rank, world_size=count, timeout=PATIENCE)
    with suppress(RunError):  # the first process tells it
        follow(learn, Place(rank, count, rank))


def _started(rank: int, count: int, port: int, threads: int) -> subprocess.Popen[bytes]:
    program = f"from tumortrace.training.ranks import follow_here; follow_here({rank}, {count}, {port})"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    # in a session of its own: the keyboard interrupts the first process alone, and its end ends the others
    return subprocess.Popen([sys.executable, "-c", program], env=environment, start_new_session=True)


def _wait_for(others: Sequence[subprocess.Popen[bytes]], store: distributed.TCPStore) -> None:
    """Until all that were started are there; one that ends before would be waited for in vain."""
    while not store.check([f"there/{rank}" for rank in range(1, len(others) + 1)]):
        if any(other.poll() is not None for other in others):
            raise RunError("a process of the training could not be started", remedy="see why above, and resume the run")
        time.sleep(0.1)


def _placed(task: Task, place: Place) -> tuple[Task, Ranks]:
    gpu = resolve_device(task.device).type == "cuda"
    # a launcher may show each process its own GPU alone
    device = torch.device("cuda", place.local % torch.cuda.device_count()) if gpu else CPU
    if gpu:
        torch.cuda.set_device(device)
    return replace(task, device=str(device)), Ranks(place.rank, place.count, device)


@contextmanager
def _told() -> Iterator[None]:
    """A connection that breaks means that one of the processes has ended."""
    try:
        yield
    except RuntimeError as error:
        raise RunError("another process of the training has ended", remedy="see why, and resume the run") from error


class _Mapped(NamedTuple):
    """In place of a memory-mapped array, which would be copied whole."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


def _portable(task: Task) -> Task:
    """The task as it is sent: files instead of what is mapped from them."""

    def sent(patches: Patches) -> Patches:
        images = patches.images
        if not isinstance(images, np.memmap) or isinstance(images.base, np.ndarray) or not images.flags.c_contiguous:
            return patches
        file = str(Path(str(images.filename)).resolve())
        return replace(patches, images=cast(Any, _Mapped(file, images.offset, images.dtype.str, images.shape)))

    there = replace(task, checkpoints=task.checkpoints.resolve(), history_file=task.history_file.resolve())
    return replace(there, training=sent(task.training), validation=sent(task.validation))


def _opened(task: Task) -> Task:
    def opened(patches: Patches) -> Patches:
        mapped: object = patches.images
        if not isinstance(mapped, _Mapped):
            return patches
        return replace(patches, images=np.memmap(mapped.file, mapped.dtype, "r", mapped.offset, mapped.shape))

    return replace(task, training=opened(task.training), validation=opened(task.validation))
