"""The Optuna study behind a search, which several processes and machines share, and which survives their end.

A trial is one thing from its first to its last epoch, however often it is interrupted: it keeps its number and its
drawn values, and whoever comes next goes on with it: from its checkpoint, or anew where that lies on another machine. A
process holds a lock on the trial at which it works, which is let go of when the process ends: this tells abandoned
trials from running ones. Optuna's heartbeats do not, as they work with `optimize` alone.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tumortrace.errors import RunError
from tumortrace.training.learner import seed_of
from tumortrace.training.space import Pruner, Sampler, Space
from tumortrace.training.study_place import Held, Place

MOST_INTERRUPTIONS = 5  # in one epoch: a trial that takes its process down each time must not do so for ever
FEWEST_FAILURES, FAILURES_PER_SUCCESS = 10, 4  # with more of them than both allow, a search is given up
FEWEST_FOR_IMPORTANCE = 4


class SeededSampler(BaseSampler):
    """Draws each parameter from a random state of its own, named by the study's seed, the trial and the parameter.

    So what a trial draws depends on the trials before it alone, and not on which process draws it or on kills.

    Args:
        options: Which sampler draws.
        seed: The study's seed.
    """

    def __init__(self, options: Sampler, seed: int) -> None:
        self._options, self._seed = options, seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is drawn by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: every parameter is drawn by itself."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of one parameter of one trial."""
        seed = seed_of(self._seed, trial.number, zlib.crc32(param_name.encode()))
        sampler: BaseSampler = RandomSampler(seed=seed)
        if self._options.name == "tpe":
            sampler = TPESampler(seed=seed, n_startup_trials=self._options.startup)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def open_study(place: Place, space: Space, seed: int, epochs: int, name: str | None = None) -> optuna.Study:
    """The study that is kept in a place, made if it is not there yet; its trials take `epochs` at most."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        storage=place.storage(),
        study_name=name or space.name,  # Hyperband's brackets follow from it
        direction="maximize" if space.objective.direction == "maximise" else "minimize",
        sampler=SeededSampler(space.sampler, seed),
        pruner=_pruner(space.pruner, epochs),
        load_if_exists=True,
    )


def join(study: optuna.Study, place: Place, asked: Mapping[str, Any]) -> None:
    """Let a study in a shared place be of what is asked, or refuse where it is of something else already.

    Args:
        study: The study.
        place: Where it is kept.
        asked: All that trials depend on, by its name in messages, as JSON takes it.

    Raises:
        RunError: The study is of something else.
    """
    with place.locked():
        known = study.user_attrs.get("asked")
        if known is None:
            study.set_user_attr("asked", dict(asked))
            return
    if differ := [name for name, value in asked.items() if known.get(name) != value]:
        raise RunError(
            f"the study {study.study_name!r} there has {' and '.join(['another ' + name for name in differ])}",
            where=place.told,
            expected="the same of all that work on it",
            remedy="correct the call, or begin a study of its own with --study NAME",
        )


def _pruner(options: Pruner, epochs: int) -> BasePruner:
    if options.name == "hyperband":
        return HyperbandPruner(
            min_resource=min(options.least_epochs, epochs), max_resource=epochs, reduction_factor=options.reduction
        )
    if options.name == "median":
        return MedianPruner(n_startup_trials=options.startup, n_warmup_steps=options.least_epochs)
    return NopPruner()


@contextmanager
def claimed(study: optuna.Study, place: Place, wanted: int) -> Iterator[optuna.Trial | None]:
    """A trial for this process alone: one that was abandoned, else a new one, or None if nothing is left to begin.

    Args:
        study: The study.
        place: Where it is kept.
        wanted: How many trials are to be finished or pruned in the end; failed ones come on top.

    Raises:
        RunError: More trials have failed than are wanted.
    """
    with place.locked():
        trial, lock = _claim(study, place, wanted)
    try:
        yield trial
    finally:
        if lock is not None:
            lock.release()


def _claim(study: optuna.Study, place: Place, wanted: int) -> tuple[optuna.Trial | None, Held | None]:
    for listed in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        lock = place.take(listed.number)
        if lock is None:
            continue
        # Whoever held the lock until now may have ended the trial since it was listed.
        trial = study.get_trials(deepcopy=False)[listed.number]
        if trial.state.is_finished():
            lock.release()
            continue
        taken = optuna.Trial(study, trial._trial_id)
        interrupted_at = [*trial.user_attrs.get("interrupted_at", []), trial.last_step]
        taken.set_user_attr("interrupted_at", interrupted_at)
        if interrupted_at.count(trial.last_step) <= MOST_INTERRUPTIONS:
            return taken, lock
        fail(study, taken, f"interrupted {len(interrupted_at)} times, without an epoch's progress in the end")
        lock.release()
    counts = count(study)
    done = counts["finished"] + counts["pruned"]
    if counts["failed"] > max(FEWEST_FAILURES, FAILURES_PER_SUCCESS * done):
        errors = [trial.user_attrs["error"] for trial in study.get_trials(deepcopy=False) if state(trial) == "failed"]
        raise RunError(
            f"{counts['failed']} of {sum(counts.values())} trials failed, the last with: {errors[-1].rstrip('.')}",
            where=place.told,
            remedy="change the space or the recipe so that more of its networks can be trained, and start anew",
        )
    if done + counts["unfinished"] >= wanted:
        return None, None
    begun = study.ask()
    return begun, place.take(begun.number)


def fail(study: optuna.Study, trial: optuna.Trial, error: str) -> None:
    """Record that a trial failed, and why.

    To Optuna it is pruned: samplers learn from pruned trials, the worst of which are those without a value, and take no
    notice of failed ones, so that they would go on proposing networks that cannot be built.
    """
    trial.set_user_attr("error", error)
    step = study.trials[trial.number].last_step
    if step is not None:
        trial.report(float("nan"), step + 1)
    study.tell(trial, state=TrialState.PRUNED)


def state(trial: FrozenTrial) -> str:
    """`finished`, `pruned`, `failed` or `unfinished`."""
    if not trial.state.is_finished():
        return "unfinished"
    if trial.state == TrialState.COMPLETE:
        return "finished"
    return "failed" if "error" in trial.user_attrs else "pruned"


def count(study: optuna.Study) -> dict[str, int]:
    """Numbers of trials that are finished, pruned, failed and unfinished."""
    states = [state(trial) for trial in study.get_trials(deepcopy=False)]
    return {name: states.count(name) for name in ("finished", "pruned", "failed", "unfinished")}


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The finished trial of the best value (the first of equals), or None; pruned ones do not count."""
    return study.best_trial if study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]) else None


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Every trial: `number, state, value, epochs, best_epoch, seconds, seed, interruptions, error`, then parameters.

    `value` is the objective at the epoch whose weights were kept; for a pruned trial, at its last epoch.
    """
    columns = ["number", "state", "value", "epochs", "best_epoch", "seconds", "seed", "interruptions", "error"]
    rows = [
        {"number": trial.number, "state": state(trial), "value": trial.value}
        | {name: trial.user_attrs.get(name) for name in columns[3:]}
        | {"interruptions": len(trial.user_attrs.get("interrupted_at", []))}
        | trial.params
        for trial in study.get_trials(deepcopy=False)
    ]
    table = pd.DataFrame(rows)
    # As they were drawn: those of the trial with the most first.
    drawn = sorted((trial.params for trial in study.get_trials(deepcopy=False)), key=len, reverse=True)
    parameters = list(dict.fromkeys(name for names in drawn for name in names))
    table = table.reindex(columns=[*columns, *parameters])
    counts = ["epochs", "best_epoch", "seed", "interruptions"]
    return table.astype(dict.fromkeys(counts, "Int64"))


def importances(study: optuna.Study) -> dict[str, dict[str, float]]:
    """Share of each parameter in the differences between finished trials, by two methods; empty where there are few.

    `ped_anova` (Watanabe et al. 2023) takes in parameters that only some trials have; `fanova` (Hutter et al. 2014)
    those that all finished trials have.
    """
    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(finished) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in finished}) < 2:
        return {}
    evaluators = {"fanova": FanovaImportanceEvaluator(seed=0), "ped_anova": PedAnovaImportanceEvaluator()}
    by_method = {}
    for name, evaluator in evaluators.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on few trials, which the report says itself
            shares = get_param_importances(study, evaluator=evaluator)
        by_method[name] = {
            parameter: round(float(share), 6) for parameter, share in shares.items() if np.isfinite(share)
        }
    return by_method


def logarithmic(study: optuna.Study) -> list[str]:
    """Names of the parameters that are drawn on a logarithmic scale."""
    drawn = [pair for trial in study.get_trials(deepcopy=False) for pair in trial.distributions.items()]
    return sorted({name for name, distribution in drawn if getattr(distribution, "log", False)})
