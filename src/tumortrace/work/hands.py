"""Who carries out pieces of work, as the user says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from tumortrace.errors import RunError

_ADDRESS = re.compile(r"[\w.-]+:\d{1,5}|\[[\da-f:]+\]:\d{1,5}")


class HandsOptions(TypedDict, total=False):
    """The fields of `Hands` as keywords, which every function that divides its work takes too."""

    workers: int
    cluster: str | None


@dataclass(frozen=True)
class Hands:
    """Who carries out the pieces of a call's work. What comes out is the same, byte for byte.

    Attributes:
        workers: Processes of this machine among which the work is divided, each with one thread.
        cluster: Divide it on a Ray cluster instead: `local` starts one here, `auto` takes the one that this machine
            belongs to, HOST:PORT another. All its machines must see the same folders.

    Raises:
        RunError: They are no number of processes, no address, or both are given.

    Example:
        >>> Hands(workers=2).workers
        2
    """

    workers: int = 1
    cluster: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether other processes than this one do the work."""
        return self.workers > 1 or self.cluster is not None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise RunError(f"--workers {self.workers}", expected="1 or more", remedy="one for each core is usual")
        if self.cluster is None:
            return
        if self.workers > 1:
            remedy = "leave --workers out: a cluster has a worker for each of its processors, or accelerators"
            raise RunError("--cluster with --workers", expected="one of them", remedy=remedy)
        if self.cluster not in ("local", "auto") and not _ADDRESS.fullmatch(self.cluster):
            raise RunError(
                f"--cluster {self.cluster}",
                expected="local, auto or HOST:PORT, such as 10.0.0.1:6379",
                remedy="`ray status` on a machine of the cluster tells the address",
            )
