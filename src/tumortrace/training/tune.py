"""The verb `tune`: a search over recipes, with every trial on record and the best one as a recipe of its own."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import optuna
import pandas as pd
from optuna.trial import FixedTrial, FrozenTrial

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions
from tumortrace.cohorts.contents import contents
from tumortrace.errors import RecipeError, RunError
from tumortrace.evaluation.split_record import class_headline
from tumortrace.models.device import resolve_device, resolve_precision
from tumortrace.records.command import command_line
from tumortrace.records.files import sha256, write_text
from tumortrace.records.metrics import Metrics, SplitMetrics
from tumortrace.records.plans import BestTrial, StudyRecord
from tumortrace.records.progress import say
from tumortrace.records.provenance import versions
from tumortrace.records.run import Run
from tumortrace.records.tables import HISTORY, PREDICTIONS, TRIALS
from tumortrace.training.experiment import Experiment, describe_machine, read_recipe, take_up
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.recipe import Recipe, with_whole_paths
from tumortrace.training.space import Space, changed, load_space, parse_space
from tumortrace.training.study import (
    best_trial,
    claimed,
    count,
    importances,
    join,
    logarithmic,
    open_study,
    state,
    trials_table,
)
from tumortrace.training.study_place import Place, place_of, reached, study_lock, trial_folder
from tumortrace.training.train import learner_of
from tumortrace.training.trial import Search, attempt, measure, total_epochs
from tumortrace.work.hands import Hands
from tumortrace.work.pieces import carry_out
from tumortrace.work.worker import Tell

NAME = re.compile(r"[\w.-]{1,100}")
WAIT = 5.0  # seconds between looks at what other machines do
_CALL = "resume_tuning(folder, data=cohort)"


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
    cluster: str | None = None,
    storage: str | None = None,
    study: str | None = None,
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
        workers: Processes among which the trials are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead: `local`, `auto` or HOST:PORT.
        storage: Where machines that search together keep the trials: a journal file on a folder that all of them see,
            or `postgresql://USER@HOST/DATABASE`, the password in PGPASSWORD or ~/.pgpass. Each makes the same call;
            `trials` are those of all together, and each writes a folder of its own. Default the study's folder.
        study: Name of the study there; default the space's.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The study's folder; `best.yaml` in it is a recipe for `train`.

    Raises:
        TumorTraceError: The data, the space or the machine do not allow it; the message says what to do.
    """
    hands = _hands(workers, cluster, data)
    named = space.name if isinstance(space, Space) else str(space)
    space, notes = _adapted(space, changes, trials, epochs_max, objective)
    recipe = with_whole_paths(space.base(changes))
    if learner_of(recipe) is not GradientLearner:
        raise RecipeError(f"{recipe.name} is not trained in epochs, which a search needs", remedy="name another recipe")
    where = resolve_device(device)
    resolve_precision(precision, where)
    if storage is None and study is not None:
        raise RunError("--study without --storage", expected="both", remedy="leave it out")
    if study is not None and not NAME.fullmatch(study):
        raise RunError(f"--study {study}", expected="letters, digits, points, hyphens and underscores")
    shared = None if storage is None else place_of(storage, study or space.name, Path(out))
    if shared is not None:
        with reached(shared):
            shared.storage()  # refused before the data are read
    experiment = Experiment.begin(
        "tune",
        data,
        recipe,
        reading,
        name=f"tune-{space.name}",
        out=out,
        split=split,
        allow=allow,
        policies=(),
        space=named,
        set=list(changes),
        trials=space.trials,
        epochs_max=space.epochs,
        objective=space.objective.metric,
        storage=None if shared is None else shared.told,
        study=study,
        seed=seed,
        device=device,
        precision=precision,
    )
    run, splits = experiment.run, experiment.splits
    experiment.keep()
    write_text(run.space_file, space.to_yaml())
    told = [*notes, *run.record.data.notes, *experiment.admission.lines]
    run.update(**describe_machine(where) | {"versions": versions() | {"optuna": optuna.__version__}}, notes=told)
    place = shared or place_of(None, space.name, run.folder)
    try:
        _open(experiment, space, place)
    except RunError:
        shutil.rmtree(run.folder)
        raise
    images = f"{splits.table['split'].eq('train').sum():,} images"
    experiment.log(f"tune: space {space.name} on {images}, {splits.leakage}")
    return _carry_out(experiment, hands, place)


def resume_tuning(
    run_folder: str | Path, data: str | Path | Cohort | None = None, *, workers: int = 1, cluster: str | None = None
) -> Path:
    """Go on with a search that was interrupted or killed, or join one that is under way; trials begun are continued.

    Args:
        run_folder: The study's folder.
        data: Where the data are now, if they were moved; the cohort, where one was given that was opened already.
        workers: Processes among which the trials are divided, each with one thread.
        cluster: Divide them on a Ray cluster instead.

    Raises:
        RunError: The folder is no study, or the data have changed since.
    """
    hands = _hands(workers, cluster, data)
    experiment = take_up(run_folder, "tune", "a study of `tune`", data, _CALL)
    if experiment is None:
        return Path(run_folder)
    arguments, folder = experiment.arguments, experiment.run.folder
    name = arguments.study or load_space(experiment.run.space_file).name
    return _carry_out(experiment, hands, place_of(arguments.storage, name, folder))


def _hands(workers: int, cluster: str | None, data: object) -> Hands:
    """Who searches.

    Raises:
        RunError: They would have to share an opened cohort.
    """
    hands = Hands(workers, cluster)
    if hands.elsewhere and isinstance(data, Cohort):
        raise RunError("several workers, which cannot share an opened cohort", remedy="give the path of the data")
    return hands


def _open(experiment: Experiment, space: Space, place: Place) -> optuna.Study:
    """The study in its place.

    Raises:
        RunError: The place cannot be reached, or there is a study of something else.
    """
    arguments, recipe = experiment.arguments, experiment.recipe
    with reached(place):
        study = open_study(place, space, arguments.seed, total_epochs(recipe), arguments.study)
        if place.shared:
            asked = {
                "search space": space.model_dump(mode="json", exclude={"trials", "description", "source", "recipe"}),
                "recipe": recipe.model_dump(mode="json", exclude={"leave_out"}),
                "data": contents(experiment.cohort, experiment.material.store).as_json(),
                "splits": sha256(experiment.run.splits_file),
                "seed": arguments.seed,
            }
            join(study, place, asked)
    return study


def _carry_out(experiment: Experiment, hands: Hands, place: Place) -> Path:
    run = experiment.run
    with experiment.recorded(partial(study_lock, run.folder)), reached(place):
        if run.record.status == "finished":  # by other processes
            return run.folder
        search = _search(experiment, place)
        if hands.elsewhere:
            _divide(search, hands, place)
        _work(search, place)
        with study_lock(run.folder):
            if left := count(search.study)["unfinished"]:
                say(f"left to other processes: {left}; the last of them writes best.yaml and the report")
            elif run.record.status != "finished":
                conclude(search)
    return run.folder


def _search(experiment: Experiment, place: Place) -> Search:
    space = load_space(experiment.run.space_file)
    return Search(experiment, space, _open(experiment, space, place), place.shared)


def _divide(search: Search, hands: Hands, place: Place) -> None:
    """Let workers carry out the trials that are left; what becomes of none of them is left to this process."""
    counts, told = count(search.study), set[str]()
    left = search.space.trials - counts["finished"] - counts["pruned"]

    def receive(_: int, outcome: Exception | None) -> None:
        if outcome is not None and str(outcome) not in told:
            told.add(str(outcome))
            say(str(outcome))

    carry_out(
        _trial,
        range(left),
        receive,
        begin=partial(_joined, search.run.folder, place),
        places=[search.run.folder] * left,
        title="trial",
        hands=hands,
        accelerated=search.experiment.arguments.device in ("auto", "cuda"),
    )


def _joined(folder: Path, place: Place) -> tuple[Search, Place]:
    """What a worker searches on."""
    run = Run(folder)
    with reached(place):
        return _search(Experiment.reopen(run, read_recipe(run.recipe_file), None, _CALL), place), place


def _trial(joined: tuple[Search, Place], _: int, tell: Tell) -> None:
    """Carry out a trial, and another where it fails; none where none is left to begin."""
    search, place = joined
    with reached(place):
        while _next(search, place) == "failed":
            pass


def _work(search: Search, place: Place) -> None:
    """Carry out trials until none is left; those of other machines are waited for, as they may be left to this one."""
    waiting = False
    while True:
        if _next(search, place) is not None:
            continue
        left = count(search.study)["unfinished"] if place.shared else 0
        if not left:
            return
        if not waiting:
            say(f"waiting for {left} trials of others; what they leave is taken up here")
        waiting = True
        time.sleep(WAIT)


def _next(search: Search, place: Place) -> str | None:
    """Carry out a trial; returns how it ended, or None where none is left to begin."""
    with claimed(search.study, place, search.space.trials) as trial:
        if trial is None:
            return None
        if "interrupted_at" in trial.user_attrs:
            search.experiment.log(f"trial {trial.number} was left by a process that ended: it is taken up")
        attempt(search, trial)
    with study_lock(search.run.folder):
        record_trials(search, trial.number)
    return state(search.study.get_trials(deepcopy=False)[trial.number])


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


def record_trials(search: Search, number: int) -> None:
    """Bring `trials.csv` up to date after a trial, say how it went, and delete the checkpoints no longer needed."""
    table = trials_table(search.study)
    TRIALS.write(search.run.folder, table)
    best = best_trial(search.study)
    for other, ended in zip(table["number"], table["state"], strict=True):
        folder = Run(trial_folder(search.run.folder, other)).checkpoints
        if ended != "unfinished" and (best is None or other != best.number) and folder.exists():
            shutil.rmtree(folder)
    row, counts, metric = table.set_index("number").loc[number], count(search.study), search.space.objective.metric
    told = row["error"].rstrip(".") if row["state"] == "failed" else f"validation {metric} {row['value']:.4f}"
    standing = "none finished yet" if best is None else f"best {best.value:.4f}, trial {best.number}"
    done = f"{counts['finished'] + counts['pruned']} of {search.space.trials}"
    search.experiment.log(f"{done}: trial {number} {row['state']}, {told}; {standing}")


def conclude(search: Search) -> None:
    """Write what is known in the end: study.json, metrics.json of the best trial, best.yaml and the report."""
    run, study, metric = search.run, search.study, search.space.objective.metric
    table, best = trials_table(study), best_trial(study)
    TRIALS.write(run.folder, table)
    if best is None:
        raise RunError("no trial was finished", where=run.folder, remedy="start a study with more epochs or trials")
    trial = Run(trial_folder(run.folder, best.number))
    if PREDICTIONS.file(trial.folder).is_file():
        measured = measure(search.experiment, PREDICTIONS.read(trial.folder))
    else:  # it was another machine's
        measured = SplitMetrics.model_validate(best.user_attrs["measured"])
    _complete_histories(search)
    Metrics({"validation": measured}).write(run.folder)
    best_file = run.best_file
    write_text(best_file, _best_recipe(search, best).to_yaml())
    arguments = search.experiment.arguments
    same = ("allow", "split", "device", "precision", *READING)
    options = {name: getattr(arguments, name) for name in same}
    command = command_line("train", arguments.data, recipe=best_file, split_seed=arguments.seed, **options)
    record = StudyRecord(
        space=search.space.name,
        objective=search.space.objective.model_dump(),
        counts=count(study),
        best=BestTrial(number=best.number, value=best.value, parameters=best.params),
        train_command=command,
        importances=importances(study),
        logarithmic=logarithmic(study),
    )
    record.write(run.folder)
    for lock in run.folder.glob("trials/*/lock"):  # nobody works on a trial any more
        lock.unlink()
    lines = [
        f"best: trial {best.number}, validation {metric} {best.value:.4f}, the best of many: optimistic",
        *([] if measured.classes is None else [f"validation of that trial, {class_headline(measured.classes)}"]),
        f"train it: {command}",
    ]
    search.experiment.finish(float(table["seconds"].sum()), lines, best_trial=best.number)


def _complete_histories(search: Search) -> None:
    """Write the objective by epoch of trials of other machines, for the report."""
    column = f"validation_{search.space.objective.metric}"
    for trial in search.study.get_trials(deepcopy=False):
        folder, values = trial_folder(search.run.folder, trial.number), trial.intermediate_values
        if values and not HISTORY.file(folder).is_file():
            HISTORY.write(folder, pd.DataFrame({"epoch": list(values), column: list(values.values())}))


def _best_recipe(search: Search, best: FrozenTrial) -> Recipe:
    drawn = search.space.suggest(FixedTrial(best.params, best.number))  # type: ignore[arg-type]
    recipe = changed(search.experiment.recipe, drawn, f"trial {best.number}")
    space, trials, base = search.space, sum(count(search.study).values()), search.experiment.recipe.name
    value = f"validation {space.objective.metric} {float(best.value or 0):.4f}"
    return recipe.model_copy(
        update={
            "name": f"{space.name}-best",
            "description": f"Best of {trials} trials of space {space.name}: {value}.",
            "source": f"study {search.run.folder.name}, trial {best.number}, from recipe {base}",
            "published": {},
            "corrected": [],
        }
    )
