"""The run folder: everything about one training, in files that anyone can read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from tumortrace.errors import RunError
from tumortrace.records.record import Part, Record
from tumortrace.records.tables import HISTORY, SEEN, SPLITS


class Arguments(Part):
    """What a verb was called with; each verb has some of these, and those of one verb alone stand in `extra`.

    Attributes:
        data: Where the data lie; None for an opened cohort, which whoever resumes has to give again.
        recipe: Its name, or several.
        set: Changes to the recipe, `key=value` each.
        allow: Findings of the audit to train in spite of.
        fractions: Shares of the training split, of a learning curve.
        repeats: How often a learning curve or a cross-validation begins anew.
        members: How many networks an ensemble trains.
        runs: Those that an ensemble joins.
        distil: Path of the teacher.
        storage: Where machines that search together keep their trials, without a password.
        study: Name of their study there, where it is not the space's.
        devices: How many processes of a machine compute each batch together.
        nodes: On how many machines.
    """

    data: str | None = None
    recipe: str | list[str] | None = None
    space: str | None = None
    trials: int | None = None
    epochs_max: int | None = None
    objective: str | None = None
    storage: str | None = None
    study: str | None = None
    set: list[str] = []
    allow: list[str] = []
    seed: int = 0
    split_seed: int | None = None
    split: str = "group"
    device: str = "auto"
    precision: str = "auto"
    devices: int = 1
    nodes: int = 1
    distil: str | None = None
    members: int | None = None
    runs: list[str] = []
    fractions: list[float] = []
    folds: int | None = None
    repeats: int = 1
    by: str | None = None
    keep_test: bool = False
    positive: str | None = None
    merge: list[str] = []
    class_order: str | None = None
    group_column: str | None = None
    group_from_name: str | None = None
    label_from_name: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    resolution: float | None = None
    bits: int | None = None


class Told(Part):
    """A finding of the audit, as a run keeps it."""

    name: str
    verdict: str = ""
    count: int = 0
    message: str = ""


class Admission(Part):
    """What the audit found before a training, what of it was allowed, and what decoding showed."""

    findings: list[Told] = []
    allowed: list[str] = []
    notes: list[str] = []

    @property
    def lines(self) -> list[str]:
        """What was allowed and what was seen, a sentence each."""
        allowed = [f"check: {f.message}, which is allowed" for f in self.findings if f.name in self.allowed]
        return [*allowed, *self.notes]


class Share(Part):
    """How much of the data a split has; `groups` is None where they are not known."""

    images: int
    positives: int = 0
    groups: int | None = None


class Contents(Part):
    """Digests of what data hold, by which a run knows them again though their files were put elsewhere, or anew.

    Attributes:
        rows: Of ids, labels, groups, splits, class names and resolution; empty in older runs.
        pictures: Of the sizes of the files and the pixels.
    """

    rows: str = ""
    pictures: str = ""


class Data(Part):
    """The data of a run or of an evaluation.

    Attributes:
        name: Of the cohort.
        place: Their absolute path, or a specification of synthetic tissue; of predictions.
        layout: As it was recognised.
        fingerprint: Of its images and labels, and of the times at which files changed.
        contents: Of its images and labels alone; of a run that can be resumed.
        images: How many.
        groups: Slides or patients, None where not known.
        classes: The negative and the positive one.
        positive_class: The latter.
        resolution: Micrometres per pixel, None where not known.
        resampled: Micrometres per pixel to which the images were resampled, None where they were not.
        in_spite: Names of findings in spite of which a model was asked, as was allowed.
        unreadable: How many images could not be read and were left out.
        split: Which of its splits was measured, where one was.
        notes: What has to be said of them.
        splits: By name, in the order train, validation, calibration, test.
    """

    name: str = ""
    place: str = ""
    layout: str = ""
    fingerprint: str = ""
    contents: Contents = Contents()
    images: int = 0
    groups: int | None = None
    classes: list[str] = []
    positive_class: str = ""
    resolution: float | None = None
    resampled: float | None = None
    in_spite: list[str] = []
    unreadable: int = 0
    split: str | None = None
    notes: list[str] = []
    splits: dict[str, Share] = {}

    @property
    def unit(self) -> str:
        """What is predicted: "slide" where a model takes features of its tiles or its map, else "image"."""
        return "slide" if self.layout in ("slide-features", "slides") else "image"

    def same(self, other: Data) -> bool:
        """Whether both are of the same images and labels, at whatever place and time their files were put there."""
        alike = bool(self.contents.rows) and self.contents == other.contents
        return alike or self.fingerprint == other.fingerprint


class Weights(Part):
    """Where a network's weights came from before it learnt; `licence` is that of a foundation model's."""

    origin: str = ""
    licence: str | None = None
    sha256: str | None = None
    unused: int | None = None
    seed: int | None = None


class Parameters(Part):
    """How many numbers a network has."""

    total: int
    trainable: int = 0


class Member(Part):
    """A network of an ensemble."""

    name: str
    weights_sha256: str = ""


class RunRecord(Record):
    """`run.json`: what was done, with what, on what, and how it ended.

    Attributes:
        name: Of the run folder.
        status: running, finished, interrupted or failed.
        started: In UTC, like `finished`.
        verb: train, ensemble, crossval, learning-curve or tune.
        command: That does it again.
        arguments: Of the call.
        audit: What the audit found, None in records of before and of verbs that did not look.
        data: The images.
        leakage: In a sentence, whether splits share slides or patients.
        device: As torch names it; `device_name` is that of the processor or GPU.
        weights: Where they came from.
        epochs: How many it took, and whose weights were kept.
        duration_s: Seconds of all its parts.
        error: Why it failed.
        members: Of an ensemble.
        recipes: Of a cross-validation, by name.
        notes: Of a search.
        best_trial: Of a search.
    """

    FILE: ClassVar[str] = "run.json"
    WHOSE: ClassVar[str] = "a run folder"
    REMEDY: ClassVar[str | None] = "name a folder that `train` made"

    name: str = ""
    status: str = ""
    started: str = ""
    verb: str = ""
    command: str = ""
    arguments: Arguments = Field(default_factory=Arguments)
    seed: int = 0
    audit: Admission | None = None
    data: Data = Field(default_factory=Data)
    leakage: str = ""
    tumortrace: str = ""
    versions: dict[str, str] = {}
    machine: str = ""
    device: str | None = None
    device_name: str | None = None
    precision: str | None = None
    threads: int | None = None
    weights: Weights | None = None
    parameters: Parameters | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    finished: str | None = None
    duration_s: float = 0.0
    error: str | None = None
    members: list[Member] = []
    recipes: list[str] = []
    notes: list[str] = []
    best_trial: int | None = None


@dataclass(frozen=True)
class Run:
    """A run folder and the names of what lies in it."""

    RECIPE: ClassVar[str] = "recipe.yaml"
    SPACE: ClassVar[str] = "space.yaml"
    BEST: ClassVar[str] = "best.yaml"

    folder: Path

    @property
    def recipe_file(self) -> Path:
        """`recipe.yaml`, fully resolved."""
        return self.folder / self.RECIPE

    @property
    def space_file(self) -> Path:
        """`space.yaml`: what a search searches."""
        return self.folder / self.SPACE

    @property
    def best_file(self) -> Path:
        """`best.yaml`: the recipe that a search found."""
        return self.folder / self.BEST

    @property
    def log_file(self) -> Path:
        """`log.txt`: every line that was said."""
        return self.folder / "log.txt"

    @property
    def model_folder(self) -> Path:
        """`model/`: the bundle."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """`checkpoints/`: to resume from."""
        return self.folder / "checkpoints"

    @property
    def splits_file(self) -> Path:
        """`splits.csv`: id, group, split."""
        return SPLITS.file(self.folder)

    @property
    def seen_file(self) -> Path:
        """`seen.csv`: digest of each picture that was used."""
        return SEEN.file(self.folder)

    @property
    def history_file(self) -> Path:
        """`history.csv`: one row per epoch."""
        return HISTORY.file(self.folder)

    @property
    def record_file(self) -> Path:
        """`run.json`; read it as `record`."""
        return RunRecord.file(self.folder)

    @property
    def record(self) -> RunRecord:
        """The content of `run.json`, read anew.

        Raises:
            RunError: It is missing or damaged.
        """
        return RunRecord.read(self.folder)

    def update(self, **fields: object) -> RunRecord:
        """Change fields of `run.json` and return its whole content."""
        record = RunRecord.model_validate(self.record.as_json() | fields)
        record.write(self.folder)
        return record


def create_run(out: Path, name: str, record: RunRecord) -> Run:
    """Make a new run folder `<UTC time>-<name>` in `out` that holds `run.json`.

    Example:
        >>> import tempfile
        >>> run = create_run(Path(tempfile.mkdtemp()), "cnn-64", RunRecord(verb="train"))
        >>> run.folder.name.endswith("Z-cnn-64"), run.record.status, run.update(status="finished").status
        (True, 'running', 'finished')
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
        begun = RunRecord(name=folder.name, status="running", started=started)
        RunRecord.model_validate(begun.as_json() | record.as_json()).write(folder)
        return Run(folder)
    raise RunError("too many runs of this name in one second", where=out, remedy="try again")


def now() -> str:
    """The time in UTC to the second, as in 2026-11-21T14:12:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
