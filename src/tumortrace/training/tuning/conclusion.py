"""What a search leaves in its folder: every trial, the best recipe, and the records of its report."""

from __future__ import annotations

import shlex
import shutil
from typing import Any

import pandas as pd

from tumortrace.cohorts.layouts import READING
from tumortrace.errors import RunError
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.records.files import write_csv, write_json, write_text
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import now
from tumortrace.reports.tuning import write_tuning_report
from tumortrace.training.recipe import Recipe, parse_recipe
from tumortrace.training.record import log
from tumortrace.training.tuning.study import best_trial, count, importances, logarithmic, trial_folder, trials_table
from tumortrace.training.tuning.trial import Search


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
