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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, distributed

from tumortrace.errors import RunError
from tumortrace.models.device import resolve_device
from tumortrace.records.progress import say
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
        with told():
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
        with told():
            distributed.all_reduce(flat)
        *sums, there = flat.split([*(term.numel() for term in terms), len(terms)])
        # laid out in memory as before, since the order in which products are added up follows from that
        totals = [torch.empty_like(term).copy_(total.view(term.shape)) for term, total in zip(terms, sums, strict=True)]
        return [total if some else None for total, some in zip(totals, there.tolist(), strict=True)]

    def follow(self, tensors: Sequence[Tensor]) -> None:
        """Take over, in place, what the first process has."""
        if self.count > 1:
            with told():
                for tensor in tensors:
                    distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all have come as far."""
        if self.count > 1:
            with told():
                distributed.barrier()


ALONE = Ranks()


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of a training.

    Attributes:
        rank: Of this process, from 0.
        count: How many there are.
        local: Which it is on its machine, from 0.
        here: How many of its machine it starts itself, this one with them; a launcher has started all.
        meeting: Host and port at which the first one awaits the others; None where a launcher has said it to torch.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    here: int = 1
    meeting: tuple[str, int] | None = None


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


def place_of(devices: int, nodes: int = 1) -> Place:
    """Where this process stands among `devices` on each of `nodes` machines.

    Without a launcher the command is typed on each machine, and the variables by which Fabric knows them tell which one
    it is.

    Raises:
        RunError: A launcher has started another number of processes, or nothing tells which machine this is.

    Example:
        >>> place_of(2)
        Place(rank=0, count=2, local=0, here=2, meeting=('127.0.0.1', 0))
    """
    place, count = launched(), devices * nodes
    if place is not None and (count > 1 or _by_torchrun()):
        if count != place.count:
            asked = f"--devices {devices}" + (f" --nodes {nodes}" if nodes > 1 else "")
            raise RunError(
                f"{place.count} processes of a launcher, and {asked}",
                expected="as many processes as devices of all machines",
                remedy="give the devices of one machine with --devices, the machines with --nodes; or leave the "
                "launcher out",
            )
        return place
    if nodes == 1:
        return Place(0, devices, 0, devices, ("127.0.0.1", 0))
    values = {name: os.environ.get(name, "") for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")}
    node, address, port = values.values()
    if not (address and port.isdigit() and int(port) < 1 << 16 and node.isdigit() and int(node) < nodes):
        given = ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in values.items())
        raise RunError(
            f"--nodes {nodes}, and nothing tells which of the machines this is ({given})",
            expected="the command under srun or torchrun, or on each machine by itself with these variables",
            remedy=f"srun --nodes {nodes} --ntasks-per-node {devices} tumortrace ..., or set NODE_RANK to 0 on the "
            f"first machine, to {nodes - 1} on the last, MASTER_ADDR and MASTER_PORT to the first one's name and a "
            "free port",
        )
    return Place(int(node) * devices, count, 0, devices, (address, int(port)))


@contextmanager
def together(task: Task, devices: int, nodes: int = 1) -> Iterator[tuple[Task, Ranks]]:
    """The task on this process's device, and the processes that learn it with this one, the first of them.

    Args:
        task: The task.
        devices: How many processes of a machine; those that no launcher has started are started here.
        nodes: How many machines.

    Raises:
        RunError: There are not as many GPUs, the device is a single one, or the processes do not find each other.
        ModelError: The device is not there.
    """
    if devices * nodes == 1:
        yield task, ALONE
        return
    place = place_of(devices, nodes)
    if task.device not in ("auto", "cpu", "cuda"):
        raise RunError(f"--devices {devices} with --device {task.device}", expected="--device auto, cpu or cuda")
    gpus = torch.cuda.device_count() if resolve_device(task.device).type == "cuda" else 0
    if gpus and place.here > gpus:
        there = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
        raise RunError(f"--devices {devices}, and {there} here", expected="a GPU for each", remedy=f"--devices {gpus}")
    with _connected(place):
        with told():
            distributed.broadcast_object_list([_portable(task)], 0)
        yield _placed(task, place)


def follow(learn: Callable[[Task, Ranks], object], place: Place) -> Path:
    """Take the task from the first process and learn it with it; returns the run folder.

    Args:
        learn: What to do with it.
        place: Where this process stands.
    """
    with _connected(place):
        given: list[Any] = [None]
        with told():
            distributed.broadcast_object_list(given, 0)
        task = _opened(cast(Task, given[0]))
        learn(*_placed(task, place))
        return task.checkpoints.parent


def follow_here(*place: Any) -> None:
    """What a process does that another of its machine has started: follow, and end quietly with the first one."""
    from tumortrace.training.train import learn

    with suppress(RunError):  # the first process tells it
        follow(learn, Place(*place))


@contextmanager
def _connected(place: Place) -> Iterator[None]:
    """All processes of the training know each other; those that this one has to start are started, and ended."""
    threads = torch.get_num_threads()
    others: list[subprocess.Popen[bytes]] = []
    try:
        if place.meeting is None:
            distributed.init_process_group(timeout=PATIENCE)
        else:
            store = _met(place, place.meeting)
            store.set(f"there/{place.rank}", "")
            if place.here > 1:
                each = max(1, threads // place.here)
                torch.set_num_threads(each)
                host = place.meeting[0]
                others = [_started(each, _beside(place, local, (host, store.port))) for local in range(1, place.here)]
                _wait_for(others, store, range(place.rank + 1, place.rank + place.here))
            distributed.init_process_group(store=store, rank=place.rank, world_size=place.count, timeout=PATIENCE)
        yield
    finally:
        torch.set_num_threads(threads)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(5)
            other.kill()


def _met(place: Place, meeting: tuple[str, int]) -> distributed.TCPStore:
    """Where processes find each other: held by the first one."""
    host, port = meeting
    if host == "127.0.0.1":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    elif place.here > 1 or place.local == 0:
        say(f"waiting for the other machines, at {host}:{port}")
    first = place.rank == 0
    try:
        return distributed.TCPStore(host, port, place.count, first, PATIENCE, wait_for_workers=False)
    except RuntimeError as error:
        raise RunError(
            f"the processes of the training cannot meet at {host}:{port}",
            expected="a free port of this machine" if first else "the first machine's name and port",
            remedy="see MASTER_ADDR and MASTER_PORT",
        ) from error


def _beside(place: Place, local: int, meeting: tuple[str, int]) -> Place:
    return Place(place.rank + local, place.count, local, 1, meeting)


def _started(threads: int, place: Place) -> subprocess.Popen[bytes]:
    program = f"from tumortrace.training.ranks import follow_here; follow_here(*{astuple(place)})"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    # in a session of its own: the keyboard interrupts the first process alone, and its end ends the others
    return subprocess.Popen([sys.executable, "-c", program], env=environment, start_new_session=True)


def _wait_for(others: Sequence[subprocess.Popen[bytes]], store: distributed.TCPStore, ranks: Iterable[int]) -> None:
    """Until all that were started are there; one that ends before would be waited for in vain."""
    keys = [f"there/{rank}" for rank in ranks]
    while not store.check(keys):
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
def told() -> Iterator[None]:
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
