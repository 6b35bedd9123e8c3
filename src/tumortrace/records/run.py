"""The run folder: everything about one training, in files that anyone can read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tumortrace.errors import RunError
from tumortrace.records.files import write_json


@dataclass(frozen=True)
class Run:
    """A run folder and the names of what lies in it."""

    folder: Path

    @property
    def record_file(self) -> Path:
        """`run.json`: verb, arguments, versions, device, seed, data, weights' origin, status, duration."""
        return self.folder / "run.json"

    @property
    def recipe_file(self) -> Path:
        """`recipe.yaml`, fully resolved."""
        return self.folder / "recipe.yaml"

    @property
    def splits_file(self) -> Path:
        """`splits.csv`: id, group, split."""
        return self.folder / "splits.csv"

    @property
    def history_file(self) -> Path:
        """`history.csv`: one row per epoch."""
        return self.folder / "history.csv"

    @property
    def predictions_file(self) -> Path:
        """`predictions.csv`: id, group, split, label, probability, prediction, decision, logit."""
        return self.folder / "predictions.csv"

    @property
    def metrics_file(self) -> Path:
        """`metrics.json`: per split, every metric with value and 95 % interval."""
        return self.folder / "metrics.json"

    @property
    def model_folder(self) -> Path:
        """`model/`: the bundle."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """`checkpoints/`: to resume from."""
        return self.folder / "checkpoints"

    def read(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            RunError: It is missing or damaged.
        """
        try:
            record = json.loads(self.record_file.read_bytes())
        except FileNotFoundError as error:
            raise RunError(
                "not a run folder: it has no run.json", where=self.folder, remedy="name a folder that `train` made"
            ) from error
        except (ValueError, OSError) as error:
            raise RunError(f"not readable ({error})", where=self.record_file, remedy="restore the file") from error
        if not isinstance(record, dict):
            raise RunError("not a record of a run", where=self.record_file, remedy="restore the file")
        return record

    def update(self, **fields: Any) -> dict[str, Any]:
        """Change fields of `run.json` and return its whole content."""
        record = self.read() | fields
        write_json(self.record_file, record)
        return record


def create_run(out: Path, name: str, record: dict[str, Any]) -> Run:
    """Make a new run folder `<UTC time>-<name>` in `out` that holds `run.json`.

    Example:
        >>> import tempfile
        >>> run = create_run(Path(tempfile.mkdtemp()), "cnn-64", {"verb": "train"})
        >>> run.folder.name.endswith("Z-cnn-64"), run.read()["status"]
        (True, 'running')
    """
    started = now()
    stem = f"{started.replace(':', '')}-{name}"
    for suffix in ["", *(f"-{count}" for count in range(2, 1000))]:
        folder = out / (stem + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(
                f"no folder can be made there ({error.strerror})", where=out, remedy="choose another -o"
            ) from error
        run = Run(folder)
        write_json(run.record_file, {"name": folder.name, "status": "running", "started": started} | record)
        return run
    raise RunError("too many runs of this name in one second", where=out, remedy="try again")


def now() -> str:
    """The time in UTC to the second, as in 2026-11-21T14:12:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
