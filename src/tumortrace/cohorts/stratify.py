"""Dividing units (slides, patients or single images) among splits, stratified by class."""

from __future__ import annotations

import numpy as np

# Where too few units hold a class, the splits that need it most come first.
_NEED_OF_BOTH_CLASSES = {"train": 8, "calibration": 4, "test": 2, "validation": 1}


def stratify(counts: np.ndarray, shares: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Index of the split for each unit, so that each split gets its share of each class.

    Greedy, largest units first: each goes where the chi-square distance to the wanted counts falls most. Then the
    best moves and swaps follow while they help: no empty split, both classes in each, counts near the wanted ones.

    Args:
        counts: Images per unit and class, float, shape (units, classes), no row of zeros, no fewer rows than splits.
        shares: Relative size of each split, by name.
        rng: Decides between alike units.

    Returns:
        Index into `shares` per unit, int, shape (units,).

    Example:
        >>> counts = np.array([[10.0, 10.0]] * 4)
        >>> sorted(stratify(counts, {"train": 0.75, "test": 0.25}, np.random.default_rng(0)).tolist())
        [0, 0, 0, 1]
    """
    fractions = np.array(list(shares.values())) / sum(shares.values())
    targets = np.maximum(fractions[:, None] * counts.sum(axis=0), 1e-9)
    chosen = np.zeros(len(counts), dtype=int)
    order = rng.permutation(len(counts))
    octave = np.floor(np.log2(counts.sum(axis=1)))  # sizes in rough classes, so that the seed has a say
    curvature, slope = 1 / targets, np.full_like(targets, -2)  # of the distance, by images of each class
    for unit in order[np.argsort(-octave[order], kind="stable")]:
        images = counts[unit]
        split = (slope @ images + curvature @ (images * images)).argmin()
        slope[split] += 2 * images * curvature[split]
        chosen[unit] = split
    need = np.array([_NEED_OF_BOTH_CLASSES[name] for name in shares])
    return _improve(chosen, counts, targets, need)


def _improve(chosen: np.ndarray, counts: np.ndarray, targets: np.ndarray, need: np.ndarray) -> np.ndarray:
    """The assignment after the best moves and swaps: first no empty split, then every class, then the right counts.

    While a class stands in as many units as there are splits, moves alone can give it to each of them: some split
    then holds it twice. Swaps, tried among few units only, mend the rest.
    """
    units, splits = len(counts), len(targets)
    for _ in range(100):
        at = np.eye(splits)[chosen]
        filled = at.T @ counts
        if units > 1000 and (filled > 0).all():
            break
        now = filled[None]
        moved = filled + (np.eye(splits) - at[:, None])[..., None] * counts[:, None, None]
        options = [now, moved.reshape(-1, *targets.shape)]
        if units <= 100:
            swapped = filled + (at - at[:, None])[..., None] * (counts[:, None] - counts)[:, :, None]
            options.append(swapped.reshape(-1, *targets.shape))
        after = np.concatenate(options)
        misfit = ((after - targets) ** 2 / targets).sum(axis=(1, 2)).round(9)
        lacking = ((after == 0) * need[:, None]).sum(axis=(1, 2))
        empty = (after.sum(axis=2) == 0).sum(axis=1)
        best = int(np.lexsort((misfit, lacking, empty))[0])  # stable: what is there wins a tie
        if best == 0:
            break
        if best <= units * splits:
            chosen[(best - 1) // splits] = (best - 1) % splits
        else:
            pair = list(divmod(best - 1 - units * splits, units))
            chosen[pair] = chosen[pair[::-1]]
    return chosen
