"""The verb `tune`: a search over recipes, with every trial on record and the best one as a recipe of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import optuna
import pandas as pd

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.splits import read_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RecipeError, RunError, TumorTraceError
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.models.device import resolve_device, resolve_precision
from tumortrace.records.files import write_csv, write_json, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, machine, versions
from tumortrace.records.run import Run, create_run, now
from tumortrace.reports.tuning import write_tuning_report
from tumortrace.training.experiment import (
    admit,
    data_arguments,
    data_record,
    device_name,
    divided,
    is_finished,
    left_to_do,
    log,
    reopened,
    without,
)
from tumortrace.training.gradient import Trainer
from tumortrace.training.recipe import Recipe, parse_recipe, with_whole_paths
from tumortrace.training.space import Space, load_space, parse_space
from tumortrace.training.study import (
    best_trial,
    claimed,
    count,
    importances,
    logarithmic,
    open_study,
    study_lock,
    trial_folder,
    trials_table,
)
from tumortrace.training.train import trainer_of
from tumortrace.training.trial import Search, attempt, total_epochs


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
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Search for the best recipe in a space; write every trial, the best recipe and a report into a new folder.

    Trials train on the training split and are judged on the validation split. The calibration and test splits are made
    and left alone, so that the best recipe, trained from the same seed, can be judged on them.

    Args:
        data: Any known layout, `synthetic:patches` or `synthetic:mri`, or an opened cohort.
        space: Name of a shipped space, path of a YAML file, or a space.
        changes: Changes to the space's recipe, as in `preprocessing.size=64`; what is set so is not searched over.
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
    refuse_within(Path(out), cohort)
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
        **data_arguments(cohort, allow),
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
    program = "import sys; from tumortrace.training.tune import join_tuning; sys.exit(join_tuning(sys.argv[1]))"
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


# What a search leaves in its folder: every trial, the best recipe, and the records of its report.


def record_trials(search: Search, number: int) -> None:
    """Bring `trials.csv` up to date after a trial, say how it went, and delete the checkpoints no longer needed."""
    table = trials_table(search.study)
    write_csv(search.run.folder / "trials.csv", table)
    best = best_trial(search.study)
    for other, state in zip(table["number"], table["state"], strict=True):
        folder = trial_folder(search.run.folder, other) / "checkpoints"
        if state != "unfinished" and (best is None or other != best.number) and folder.exists():
            shutil.rmtree(folder)
    row, counts, metric = table.set_index("number").loc[number], count(search.study), search.space.objective.metric
    told = row["error"].rstrip(".") if row["state"] == "failed" else f"validation {metric} {row['value']:.4f}"
    standing = "none finished yet" if best is None else f"best {best.value:.4f}, trial {best.number}"
    done = f"{counts['finished'] + counts['pruned']} of {search.space.trials}"
    log(search.run, f"{done}: trial {number} {row['state']}, {told}; {standing}")


def conclude(search: Search) -> None:
    """Write what is known in the end: study.json, metrics.json of the best trial, best.yaml and the report."""
    run, study, metric = search.run, search.study, search.space.objective.metric
    table, best = trials_table(study), best_trial(study)
    write_csv(run.folder / "trials.csv", table)
    if best is None:
        raise RunError("no trial was finished", where=run.folder, remedy="start a study with more epochs or trials")
    folder = trial_folder(run.folder, best.number)
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"id": "string", "group": "string"})
    write_json(run.metrics_file, {"validation": evaluate_table(predictions, 0.5)})
    recipe = parse_recipe((folder / "recipe.yaml").read_text(encoding="utf-8"), f"trial {best.number}")
    best_file = run.folder / "best.yaml"
    write_text(best_file, _best_recipe(search, recipe, best.number, float(best.value or 0)).to_yaml())
    arguments = search.arguments | {"recipe": str(best_file), "set": [], "split_seed": search.arguments["seed"]}
    command = command_line("train", arguments)
    write_json(
        run.folder / "study.json",
        {
            "space": search.space.name,
            "objective": search.space.objective.model_dump(),
            "counts": count(study),
            "best": {"number": best.number, "value": best.value, "parameters": best.params},
            "train_command": command,
            "importances": importances(study),
            "logarithmic": logarithmic(study),
        },
    )
    seconds = round(float(table["seconds"].sum()), 1)
    run.update(status="finished", finished=now(), error=None, duration_s=seconds, best_trial=best.number)
    for lock in run.folder.glob("trials/*/lock"):  # nobody works on a trial any more
        lock.unlink()
    report = write_tuning_report(run.folder)
    log(search.run, f"best: trial {best.number}, validation {metric} {best.value:.4f}, the best of many: optimistic")
    log(search.run, f"train it: {command}")
    log(search.run, f"report: {report}. {RESEARCH_USE}")


def _best_recipe(search: Search, recipe: Recipe, number: int, value: float) -> Recipe:
    metric, trials = search.space.objective.metric, sum(count(search.study).values())
    return recipe.model_copy(
        update={
            "name": f"{search.space.name}-best",
            "description": f"Best of {trials} trials of space {search.space.name}: validation {metric} {value:.4f}.",
            "source": f"study {search.run.folder.name}, trial {number}, from recipe {search.recipe.name}",
            "published": {},
            "corrected": [],
        }
    )


def command_line(verb: str, arguments: dict[str, Any]) -> str:
    """The command that `tune` was called with, or the one that trains its best recipe on the same splits."""
    source = ["--space", arguments["space"]] if verb == "tune" else ["--recipe", arguments["recipe"]]
    words = ["tumortrace", verb, arguments["data"] or "COHORT", *source]
    for change in arguments["set"]:
        words += ["--set", change]
    for name in arguments.get("allow", []):
        words += ["--allow", name]
    own = ("trials", "epochs_max", "objective", "seed") if verb == "tune" else ("split_seed",)
    for name in (*own, "split", "device", "precision", *READING):
        if arguments[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join(words)
