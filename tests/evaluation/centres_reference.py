"""Makes `centres_reference.json`: what croma 1.0.1 (PyPI, Apache-2.0) gives for the cases of `test_centres.py`.

Not installed for the tests: `pip install croma==1.0.1`, then `python tests/evaluation/centres_reference.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

KEPT = Path(__file__).with_suffix(".json")
CASES = 40
CANDIDATES = (5, 11, 21, 41, 61)


def cases() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Features, classes, centres and slides of cohorts in which both class and centre move the features."""
    for seed in range(CASES):
        random = np.random.default_rng(seed)
        count, classes, centres = random.integers(70, 260), random.integers(2, 5), random.integers(2, 6)
        kind = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
        centre = random.integers(0, centres, count)
        slide = centre * 1000 + random.integers(0, 12, count)
        of_class = random.normal(size=(classes, 6)) * random.uniform(0.2, 2)
        of_centre = random.normal(size=(centres, 6)) * random.uniform(0.2, 2)
        features = random.normal(size=(count, 6)) + of_class[kind] + of_centre[centre]
        yield features.astype(np.float32), kind, centre.astype(str), slide.astype(str)


def main() -> None:
    """Write the values."""
    import pandas as pd
    from croma import RI, CRoMa

    kept = []
    for features, kind, centre, slide in cases():
        manifest = pd.DataFrame({"label": kind, "center": centre, "group_id": slide})
        manifest["sample_id"] = manifest["image_path"] = manifest.index.astype(str)
        index = RI.compute(
            features.astype(np.float64), manifest, confounder_column="center", k_candidates=list(CANDIDATES)
        )
        values = {"k": index.k, "index": index.value, "support": index.support}
        try:
            margin = CRoMa.compute(features.astype(np.float64), manifest, confounder_column="center")
            values |= {"margin": margin.value, "worst": margin.ltm_alpha, "centre_bound": margin.f0}
        except RuntimeError:  # an image lacks neighbours of a kind
            pass
        kept.append(values)
    KEPT.write_text(json.dumps(kept, indent=0) + "\n")


if __name__ == "__main__":
    main()
