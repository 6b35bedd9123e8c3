"""The verb `tune`: a search over recipes, with every trial on record and the best one as a recipe of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import optuna

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import Reading, open_cohort, refuse_within
from tumortrace.cohorts.splits import read_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RecipeError, RunError, TumorTraceError
from tumortrace.models.device import resolve_device, resolve_precision
from tumortrace.records.files import write_csv, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.progress import say
from tumortrace.records.provenance import machine, versions
from tumortrace.records.run import Run, create_run, now
from tumortrace.training.admission import admit, divided
from tumortrace.training.chosen import with_whole_paths
from tumortrace.training.fit import Trainer
from tumortrace.training.leave_out import without
from tumortrace.training.recipe import parse_recipe
from tumortrace.training.record import data_arguments, data_record, device_name, log
from tumortrace.training.reopen import is_finished, left_to_do, reopened
from tumortrace.training.train import trainer_of
from tumortrace.training.tuning.conclusion import command_line, conclude, record_trials
from tumortrace.training.tuning.space import Space, load_space, parse_space
from tumortrace.training.tuning.study import claimed, count, open_study, study_lock
from tumortrace.training.tuning.trial import Search, attempt, total_epochs


def tune(
    data: str | Path | Cohort,
    *,
    space: str | Path | Space = "augmentation-optimiser",
    changes: Sequence[str] = (),
    trials: int | None = None,
    epochs_max: int | None = None,
    objective: str | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split: str = "group",
    allow: Sequence[str] = (),
    workers: int = 1,
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[Reading],
) -> Path:
    """Search for the best recipe in a space; write every trial, the best recipe and a report into a new folder.

    Trials train on the training split and are judged on the validation split. The calibration and test splits are made
    and left alone, so that the best recipe, trained from the same seed, can be judged on them.

    Args:
        data: Any known layout, or an opened cohort.
        space: Name of a shipped space, path of a YAML file, or a space.
        changes: `key=value` each, applied to the space's recipe; a parameter set so is not searched over.
        trials: Instead of the space's number of trials.
        epochs_max: Instead of the space's most epochs of one trial.
        objective: Instead of the space's objective: `loss` or a metric's name.
        out: Folder in which the study's folder is made.
        seed: Seed of splits and trials. One process draws the same trials from the same seed (CPU).
        split: "group" keeps slides or patients together; "random" does not, and the report says so.
        allow: Findings of `check` to search in spite of, as for `train`.
        workers: Processes that search at the same time; they share the processor's cores.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The study's folder; `best.yaml` in it is a recipe for `train`.

    Raises:
        TumorTraceError: The data, the space or the machine do not allow it; the message says what to do.
    """
    if workers > 1 and isinstance(data, Cohort):
        raise RunError("several workers, which cannot share an opened cohort", remedy="give the path of the data")
    named = space.name if isinstance(space, Space) else str(space)
    space, notes = _adapted(space, changes, trials, epochs_max, objective)
    recipe = with_whole_paths(space.base(changes))
    if trainer_of(recipe) is not Trainer:
        raise RecipeError(f"{recipe.name} is not trained in epochs, which a search needs", remedy="name another recipe")
    device_found = resolve_device(device)
    resolve_precision(precision, device_found)
    require_folder(Path(out))
    cohort = without(open_cohort(data, **reading).labelled, recipe)
    refuse_within(Path(out), data, cohort)
    splits, looks = divided(cohort, split, seed, recipe.splits)
    audit, _ = admit(cohort, splits, looks=looks, split=split, allow=allow)
    arguments = {
        "space": named,
        "set": list(changes),
        "trials": space.trials,
        "epochs_max": space.epochs,
        "objective": space.objective.metric,
        "seed": seed,
        "split": split,
        "device": device,
        "precision": precision,
        **data_arguments(data, allow, reading),
    }
    record = {"verb": "tune", "command": command_line("tune", arguments), "arguments": arguments, "seed": seed}
    run = create_run(Path(out), f"tune-{space.name}", record | data_record(cohort, splits))
    write_text(run.folder / "space.yaml", space.to_yaml())
    write_text(run.recipe_file, recipe.to_yaml())
    write_csv(run.splits_file, splits.table)
    run.update(
        tumortrace=versions()["tumortrace"],
        versions=versions() | {"optuna": optuna.__version__},
        machine=machine(),
        device=str(device_found),
        device_name=device_name(device_found),
        notes=[*notes, *cohort.notes, *splits.notes, *(f"check: {f.message}, which is allowed" for f in audit.errors)],
    )
    open_study(run.folder, space, seed, total_epochs(recipe))
    log(run, f"tune: space {space.name} on {splits.table['split'].eq('train').sum():,} images, {splits.leakage}")
    return _carry_out(run, cohort, workers)


def resume_tuning(run_folder: str | Path, data: Cohort | None = None, *, workers: int = 1) -> Path:
    """Go on with a search that was interrupted or killed, or join one that is under way; trials begun are continued.

    Args:
        run_folder: The study's folder.
        data: The cohort, where `tune` was given one that was opened already.
        workers: Processes that search at the same time.

    Raises:
        RunError: The folder is no study, or the data have changed since.
    """
    run = Run(Path(run_folder))
    if not left_to_do(run, "tune", "a study of `tune`"):
        return run.folder
    if data is not None and workers > 1:
        raise RunError("several workers, which cannot share an opened cohort", remedy="use one")
    recipe = parse_recipe(run.recipe_file.read_text(encoding="utf-8"), str(run.recipe_file))
    cohort = without(reopened(run, recipe, data, "resume_tuning(folder, data=cohort)"), recipe)
    with study_lock(run.folder):
        if is_finished(run):  # by the other processes, meanwhile
            return run.folder
        run.update(status="running", error=None)
    return _carry_out(run, cohort, workers)


def join_tuning(run_folder: str | Path) -> int:
    """Work on a study as one of several processes; errors become a line, and the exit code is returned."""
    try:
        resume_tuning(run_folder)
    except TumorTraceError as error:
        say(str(error))
        return 1
    return 0


def _carry_out(run: Run, cohort: Cohort, workers: int) -> Path:
    with _recorded(run):
        if workers > 1:
            _employ(run.folder, workers)
            if is_finished(run):
                return run.folder
        arguments = run.read()["arguments"]
        space = load_space(run.folder / "space.yaml")
        recipe = parse_recipe(run.recipe_file.read_text(encoding="utf-8"), str(run.recipe_file))
        search = Search(
            run,
            space,
            recipe,
            cohort,
            read_splits(run.splits_file, cohort, by_group=arguments["split"] == "group"),
            open_store(cohort),
            open_study(run.folder, space, arguments["seed"], total_epochs(recipe)),
            arguments,
        )
        while True:
            with claimed(search.study, run.folder, space.trials) as trial:
                if trial is None:
                    break
                attempt(search, trial)
            with study_lock(run.folder):
                record_trials(search, trial.number)
        with study_lock(run.folder):
            if left := count(search.study)["unfinished"]:
                say(f"left to other processes: {left}; the last of them writes best.yaml and the report")
            elif not is_finished(run):
                conclude(search)
    return run.folder


def _adapted(
    space: str | Path | Space, changes: Sequence[str], trials: int | None, epochs: int | None, objective: str | None
) -> tuple[Space, list[str]]:
    """The space with the caller's wishes in it, and what has to be said about them."""
    if not isinstance(space, Space):
        space = load_space(space)
    document = space.model_dump(mode="json")
    document |= {name: value for name, value in {"trials": trials, "epochs": epochs}.items() if value is not None}
    if objective is not None:
        document["objective"] = {"metric": objective}
    set_keys = {change.partition("=")[0].strip() for change in changes}
    if "epochs" in set_keys:
        raise RecipeError("--set epochs", expected="--epochs-max", remedy="write it so")
    fixed = set_keys & set(document["parameters"])
    document["parameters"] = {path: form for path, form in document["parameters"].items() if path not in fixed}
    notes = [f"not searched over, because set: {', '.join(sorted(fixed))}"] if fixed else []
    return parse_space(document, f"space {space.name}"), notes


def _employ(folder: Path, workers: int) -> None:
    """Let several processes work on the study, with a share of the cores each, and wait for them."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TTY_COMPATIBLE": "0"}
    program = "import sys; from tumortrace.training.tuning.tune import join_tuning; sys.exit(join_tuning(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(folder)]
    processes = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    try:
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.terminate()


@contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Leave the study's true status in `run.json` however the work ends, short of a kill."""
    try:
        yield
    except KeyboardInterrupt:
        _unless_finished(run, status="interrupted", finished=now())
        raise RunError(
            "interrupted", where=run.folder, remedy=f"continue with `tumortrace tune --resume {run.folder}`"
        ) from None
    except BaseException as error:
        reason = str(error) if isinstance(error, TumorTraceError) else f"{type(error).__name__}: {error}"
        _unless_finished(run, status="failed", finished=now(), error=reason)
        raise


def _unless_finished(run: Run, **fields: Any) -> None:
    """Change the study's record, unless another process has brought the study to its end."""
    with study_lock(run.folder):
        if not is_finished(run):
            run.update(**fields)
