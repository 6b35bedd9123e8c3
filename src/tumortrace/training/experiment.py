"""An experiment: trainings that share their data, from data and recipe to a record of how they ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions
from tumortrace.cohorts.columns import centre_column
from tumortrace.cohorts.contents import contents
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.material import Divide, Material, admit, without
from tumortrace.cohorts.splits import LEAK, Splits, read_splits
from tumortrace.errors import RunError, TumorTraceError
from tumortrace.models.architecture import count_parameters
from tumortrace.records.command import command_line
from tumortrace.records.files import write_text
from tumortrace.records.output import require_folder
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, machine, versions
from tumortrace.records.run import Admission, Arguments, Data, Run, RunRecord, Share, create_run, now
from tumortrace.records.tables import HISTORY, SPLITS
from tumortrace.reports.page import REPORT
from tumortrace.reports.report import renew_report
from tumortrace.training.learner import Learner
from tumortrace.training.recipe import Recipe, parse_recipe
from tumortrace.training.resumption import recognise, resumed_by, source_of
from tumortrace.training.task import Task, require_its_kind, require_unseen, require_watchable, split_patches

#: What follows the command of a training whose splits were made otherwise.
ON_GIVEN_SPLITS = "  # on the splits.csv and with the recipe.yaml of this folder"


@dataclass(frozen=True)
class Experiment:
    """One training, or several that belong together, on images that are opened, decoded and audited once.

    Attributes:
        run: Its run folder.
        recipe: What is trained.
        material: The images.
        splits: Their splits.
    """

    run: Run
    recipe: Recipe
    material: Material
    splits: Splits

    @classmethod
    def begin(
        cls,
        verb: str,
        data: str | Path | Cohort,
        chosen: Recipe,
        reading: ReadingOptions,
        /,
        *,
        name: str,
        out: str | Path,
        split: str,
        allow: Collection[str],
        divide: Divide | None = None,
        policies: Collection[str] | None = None,
        told: Mapping[str, object] = MappingProxyType({}),
        remark: str = "",
        **arguments: Any,
    ) -> Experiment:
        """Open, divide and audit the data, and make the run folder.

        Args:
            verb: What the record calls it.
            data: Any known layout, or an opened cohort.
            chosen: The recipe that is trained, or the first; it may leave out images.
            reading: Options of `open_cohort`.
            name: Of the run folder, after the time.
            out: Folder in which it is made.
            split: "group" or "random".
            allow: Findings of `check` to train in spite of.
            divide: How to divide the images; None assigns splits by `seed` or `split_seed`.
            policies: Threshold policies that calibration must be large enough for; None takes the recipe's.
            told: Options that the command line writes otherwise than `arguments`.
            remark: What follows the command line.
            **arguments: Of the call, for the record; `seed` among them.

        Raises:
            TumorTraceError: The data or the place for results do not allow it; nothing is left behind.
        """
        require_folder(Path(out))
        if not isinstance(data, Cohort):
            data, reading = open_cohort(data, **reading), {}
        require_its_kind(chosen, data)
        by = arguments["seed"] if arguments.get("split_seed") is None else arguments["split_seed"]
        material, splits, admission = admit(
            data,
            divide or (lambda material: material.divide(split, by, chosen.splits)),
            out=Path(out),
            leave_out=chosen.leave_out,
            split=split,
            allow=allow,
            policies=[chosen.calibration.threshold] if policies is None else policies,
            **reading,
        )
        require_watchable(chosen, material.cohort)
        source = material.cohort.source
        where = {"data": None} if source is None else source.arguments()
        given = {**arguments, "split": split, "allow": list(allow), **where}
        line = command_line(resumed_by(verb), given["data"], **{**given, "data": None, **told})
        record = RunRecord(
            verb=verb,
            command=line + remark,
            arguments=Arguments(**given),
            seed=arguments["seed"],
            audit=admission,
            **describe_data(material, splits),
            **describe_machine(),
        )
        return cls(create_run(Path(out), name, record), chosen, material, splits)

    @classmethod
    def reopen(
        cls, run: Run, recipe: Recipe, data: str | Path | Cohort | None, call: str, divide: Divide | None = None
    ) -> Experiment:
        """The experiment of a run folder, on the data that it began with, wherever they are now.

        Args:
            run: The run folder; its record is renewed where the data were moved, or put there anew.
            recipe: Its recipe.
            data: Where the data are now, None if they were not moved; the cohort, where one was given.
            call: How to give it, for the message.
            divide: How it divided the images, where `splits.csv` does not say.

        Raises:
            RunError: The data are not to be had, or are not what they were.
        """
        opened = data if isinstance(data, Cohort) else open_cohort(source_of(run, data, call))
        cohort = without(opened.labelled, recipe.leave_out)
        material = Material(cohort, run.record.arguments.allow)
        recognise(run, material)
        by_group = _kept_apart(run.record.arguments)
        splits = divide(material) if divide else read_splits(run.splits_file, cohort, by_group=by_group)
        return cls(run, recipe, material, splits)

    @property
    def cohort(self) -> Cohort:
        """The labelled images, without those that the recipe leaves out."""
        return self.material.cohort

    @cached_property
    def arguments(self) -> Arguments:
        """What the verb was called with."""
        return self.run.record.arguments

    @cached_property
    def admission(self) -> Admission:
        """What the audit found and what of it was allowed; runs of older versions have not kept it."""
        arguments = self.arguments
        known = self.run.record.audit
        return known or self.material.audit(self.splits, split=arguments.split, allow=arguments.allow)

    def part(self, place: Path, recipe: Recipe, splits: Splits, seed: int) -> Experiment:
        """One of the trainings that it is made of, in a folder of its own: begun, or as far as it has come.

        Args:
            place: Folder for the run folder of the part alone.
            recipe: What to train.
            splits: On what.
            seed: Of the weights, the order and the augmentation.
        """
        begun = begun_in(place)
        if begun is not None:
            by_group = _kept_apart(self.arguments)
            kept = read_splits(begun.splits_file, self.cohort, by_group=by_group)
            return Experiment(begun, read_recipe(begun.recipe_file), self.material, kept)
        shared = ("data", "allow", "split", "device", "precision", "distil", *READING)
        given = {name: getattr(self.arguments, name) for name in shared}
        given |= {"recipe": recipe.name, "set": [], "seed": seed, "split_seed": None}
        record = RunRecord(
            verb="train",
            command=command_line("train", given["data"], **{**given, "data": None}) + ON_GIVEN_SPLITS,
            arguments=Arguments(**given),
            seed=seed,
            audit=self.admission,
            **describe_data(self.material, splits),
            **describe_machine(),
        )
        part = Experiment(create_run(place, recipe.name, record), recipe, self.material, splits)
        part.keep()
        return part

    def keep(self) -> None:
        """Write recipe and splits, from which it can be resumed, into the run folder."""
        write_text(self.run.recipe_file, self.recipe.to_yaml())
        SPLITS.write(self.run.folder, self.splits.table)

    def task(self, folder: Path, recipe: Recipe, seed: int) -> Task:
        """What a learner is given to make a model of the training split, its files in `folder`."""
        require_watchable(recipe, self.cohort)
        require_unseen(recipe.weights, self.material, self.splits)
        images = self.material.prepared(recipe.preprocessing).images
        probe = recipe.probe
        centres = centre_column(self.cohort.table, probe.centre, self.cohort.name) if probe else None
        training, validation = (
            split_patches(self.cohort, images, self.splits, name, centres) for name in ("train", "validation")
        )
        return Task(
            recipe,
            training,
            validation,
            checkpoints=Run(folder).checkpoints,
            history_file=HISTORY.file(folder),
            seed=seed,
            device=self.arguments.device,
            precision=self.arguments.precision,
            data_key=f"{self.cohort.fingerprint} {self.material.store.size} {recipe.preprocessing.preparation_key}",
        )

    @contextmanager
    def recorded(self, lock: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
        """Leave the true status in the record however the work ends, short of a kill.

        Args:
            lock: What is taken around each change, where several processes work on it; what one has finished stays.
        """
        run = self.run

        def record(**fields: object) -> None:
            with lock():
                if run.record.status != "finished":
                    run.update(**fields)

        record(status="running", **({"error": None} if run.record.error else {}))
        try:
            yield
        except BaseException as error:
            # the record of a part turns the keyboard's interrupt into a RunError of that name
            if isinstance(error, KeyboardInterrupt) or getattr(error, "found", None) == "interrupted":
                record(status="interrupted", finished=now())
                remedy = f"continue with `{command_line(resumed_by(run.record.verb), resume=run.folder)}`"
                raise RunError("interrupted", where=run.folder, remedy=remedy) from None
            reason = str(error) if isinstance(error, TumorTraceError) else f"{type(error).__name__}: {error}"
            record(status="failed", finished=now(), error=reason)
            raise

    def describe(self, learner: Learner, notes: Collection[str]) -> None:
        """Write down what learns, where, and what has to be said of it."""
        told = list(dict.fromkeys([*self.run.record.data.notes, *notes, *learner.notes, *self.admission.lines]))
        self.run.update(
            **describe_machine(learner.device),
            precision=learner.precision,
            threads=torch.get_num_threads(),
            weights=learner.weights | {"seed": self.run.record.seed},
            parameters=count_parameters(learner.network),
        )
        self.note(told)

    def note(self, notes: Collection[str]) -> None:
        """Say notes on the data, and keep them in record and log."""
        self.run.update(data=self.run.record.data.model_copy(update={"notes": list(notes)}).as_json())
        for note in notes:
            self.log(f"note: {note}")

    def log(self, line: str) -> None:
        """Say a line and keep it in the run's `log.txt`."""
        say(line)
        with open(self.run.log_file, "a", encoding="utf-8") as file:
            file.write(f"{now()} {line}\n")

    def finish(self, seconds: float, lines: Collection[str], **fields: object) -> Path:
        """End the experiment: what it has measured is on record, and stays so whatever becomes of its report."""
        self.run.update(status="finished", finished=now(), duration_s=round(seconds, 1), **fields)
        for line in lines:
            self.log(line)
        renew_report(self.run.folder)
        self.log(RESEARCH_USE)
        return self.run.folder


def take_up(
    folder: str | Path,
    verb: str,
    called: str,
    data: str | Path | Cohort | None,
    call: str,
    *,
    recipe: Callable[[Run], Recipe] | None = None,
    divide: Callable[[Run], Divide] | None = None,
) -> Experiment | None:
    """The experiment of a folder that can go on; None, said in a line, where nothing is left to do.

    Args:
        folder: The run folder.
        verb: Which it must be of.
        called: That in words, as in "a run of `train`".
        data: Where the data are now, None if they were not moved; the cohort, where one was given.
        call: How to give it, for the message.
        recipe: Its recipe; None reads `recipe.yaml`.
        divide: As for `Experiment.reopen`.

    Raises:
        RunError: It is of another verb, or the data are not to be had, or are not what they were.
    """
    run = Run(Path(folder))
    record = run.record
    if record.verb != verb:
        other = resumed_by(record.verb)
        remedy = f"`tumortrace {other} --resume {run.folder}`" if other in ("train", "crossval", "tune") else None
        raise RunError(f"a run of {record.verb!r}", where=run.folder, expected=called, remedy=remedy)
    if record.status == "finished":
        say(f"{run.folder} is finished; nothing to resume")
        if not (run.folder / REPORT).is_file():  # it ended before its report, or the report failed
            renew_report(run.folder)
        return None
    chosen = read_recipe(run.recipe_file) if recipe is None else recipe(run)
    return Experiment.reopen(run, chosen, data, call, divide(run) if divide else None)


def _kept_apart(arguments: Arguments) -> bool:
    """Whether no slide or patient may stand in several splits."""
    return arguments.split == "group" and LEAK not in arguments.allow


def begun_in(place: Path) -> Run | None:
    """The run that was begun in `place` and got far enough to be resumed, or None."""
    runs = [Run(folder) for folder in sorted(place.glob("*"))]
    needed = [[run.record_file, run.recipe_file, run.splits_file] for run in runs]
    begun = [run for run, files in zip(runs, needed, strict=True) if all(file.is_file() for file in files)]
    return begun[-1] if begun else None


def read_recipe(file: Path) -> Recipe:
    """A recipe that a run keeps."""
    return parse_recipe(file.read_text(encoding="utf-8"), str(file))


def describe_data(material: Material, splits: Splits) -> dict[str, Any]:
    """Fields `data` and `leakage` of a record."""
    cohort = material.cohort
    rows = splits.table.merge(cohort.table[["id", "label"]], on="id", how="left")
    parts = {str(name): part for name, part in rows.groupby("split", sort=False)}
    shares = {
        name: Share(
            images=len(part),
            positives=int(part["label"].sum()),
            groups=int(part["group"].nunique()) if cohort.has_groups else None,
        )
        for name in ("train", "validation", "calibration", "test")
        if (part := parts.get(name)) is not None
    }
    data = Data(
        name=cohort.name,
        layout=cohort.layout,
        fingerprint=cohort.fingerprint,
        contents=contents(cohort, material.store),
        images=len(cohort),
        groups=int(cohort.table["group"].nunique()) if cohort.has_groups else None,
        classes=list(cohort.classes),
        positive_class=cohort.positive_class,
        resolution=material.resolution,
        notes=[*cohort.notes, *splits.notes],
        splits=shares,
    )
    return {"data": data, "leakage": splits.leakage}


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Fields of a record that say with what it was computed."""
    fields: dict[str, Any] = {"tumortrace": versions()["tumortrace"], "versions": versions(), "machine": machine()}
    if device is not None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
        fields |= {"device": str(device), "device_name": name}
    return fields
