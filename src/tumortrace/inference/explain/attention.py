"""Where in a slide a model of slides looked: weight and evidence of each tile, and whether learning made the map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from tumortrace.cohorts.bags import Bags, grid_of, open_bags, tile_map
from tumortrace.cohorts.cohort import BAGS, Cohort
from tumortrace.cohorts.feature_files import FeatureFile
from tumortrace.errors import ModelError
from tumortrace.evaluation.intervals import mean_with_interval
from tumortrace.inference.explain.faithfulness import cascade, rank_correlation
from tumortrace.inference.explain.measures import NETWORKS, depends_on_weights
from tumortrace.inference.explain.pictures import explanations_folder
from tumortrace.inference.unseen import end, open_data, provenance
from tumortrace.models.architecture import takes_features
from tumortrace.models.bags.pooling import SlidePooling
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.models.description import ModelInfo
from tumortrace.records.evaluation import Explained, ExplanationsRecord, Randomised
from tumortrace.records.files import write_csv
from tumortrace.records.metrics import Mean
from tumortrace.records.progress import track
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.slides import AttentionRecord
from tumortrace.reports.explanation import Heat, draw_explanation

SHOWN = 24  # slides of which pictures are drawn
_FILES = (".h5", ".hdf5")


def of_slides(run: str | Path) -> bool:
    """Whether a run's model is one of slides."""
    return takes_features(ModelInfo.read(find_bundle(run)).architecture.name)


def explain_slides(
    run: str | Path,
    slides: Sequence[str | Path],
    *,
    count: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "auto",
) -> Path:
    """Draw the attention and the evidence of each tile of slides, and test that they depend on what was learnt.

    The randomisation test (Adebayo et al. 2018): the rank correlation of the attention with that of the same network
    after its weights were shuffled, mean over three such networks, of each slide.

    Args:
        run: Run folder or bundle of a model of slides that pools by attention.
        slides: Files of features, or one folder or table of them.
        count: Of how many slides pictures are drawn, default 24; all have tables and are tested.
        seed: Of random weights.
        out: Folder to write; default `explanations` in the run folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The folder, with a picture and a table (`x, y, side, attention, evidence`) for each slide, `explanations.json`
        and `attention.json`.

    Raises:
        ModelError: The model pools by the mean or the maximum, or the features are of another body.
        CohortError: They cannot be read.
    """
    model = load_model(run, device=device, slides=True)
    network = model.network
    if not isinstance(network, SlidePooling) or network.pooling.attention is None:
        raise ModelError(
            "a model that weighs all tiles alike, or numbers and no tiles",
            where=run,
            expected="one that pools by attention",
            remedy="train it with --recipe slide-attention",
        )
    cohort = _opened(model, slides)
    store = open_bags(cohort, keep_failed=True)
    bags, sound = cast(Bags, store.images), store.sound
    said = model.assess(store.images, sound, description="predicting")
    folder = explanations_folder(model, out)
    strangers = [one for number in range(NETWORKS) for _, one in cascade(model, seed + number, shares=(1.0,))]
    items, kept = list[Explained](), list[float]()
    for place, row in enumerate(track(sound, "explaining", total=len(sound))):
        tiles = bags.padded(np.array([row])).to(model.device)
        attention, evidence = (part[0].cpu().numpy() for part in network.attention_of(tiles))
        others = [_attention(stranger, tiles) for stranger in strangers]
        kept.append(float(np.mean([rank_correlation(attention[None], other[None]) for other in others])))
        file, label = bags.files[row], cohort.table["label"].iloc[row]
        name = f"{place:03d}-{store.ids[row]}".replace("/", "-")
        _write_table(folder / f"{name}.csv", file, attention, evidence)
        item = Explained(
            id=store.ids[row],
            label=None if pd.isna(label) else int(label),
            probability=float(said.probability[place]),
            prediction=int(said.prediction[place]),
            decision=str(said.decision[place]),
            figure=f"{name}.png",
        )
        if place < (SHOWN if count is None else count):
            title = f"{item.id}: {model.info.positive_class} {item.probability:.2f}, {item.decision}"
            _draw(folder / item.figure, file, attention, evidence, title, model.info.positive_class)
            items.append(item)
    groups = [None if pd.isna(name) else str(name) for name in cohort.table["group"].iloc[sound]]
    record = _randomised(model, cohort, kept, groups, seed)
    record.write(folder)
    notes = [*cohort.notes, record.line]
    ExplanationsRecord(
        method=f"attention and evidence of each tile ({record.line})",
        methods=["attention"],
        target=model.info.positive_class,
        model=model.named,
        items=items,
        notes=notes,
        research_use=RESEARCH_USE,
    ).write(folder)
    return end(model, folder, f"explain: {len(sound):,} slides in {folder}", notes)


def _opened(model: Model, slides: Sequence[str | Path]) -> Cohort:
    """The slides: files by themselves, or a folder or table with what it says of them."""
    paths = [Path(slide) for slide in slides]
    if len(paths) == 1:
        return open_data(model, paths[0])
    if not all(path.suffix.lower() in _FILES for path in paths):
        raise ModelError(
            f"{len(paths)} folders or tables", expected="files of features, or one folder or table of them"
        )
    parts = [open_data(model, path) for path in paths]
    table = pd.concat([part.table for part in parts], ignore_index=True)
    return Cohort("the slides", BAGS, table, model.info.classes, preparation=parts[0].preparation)


def _attention(model: Model, tiles: torch.Tensor) -> np.ndarray:
    attention, _ = cast(SlidePooling, model.network).attention_of(tiles)
    return attention[0].cpu().numpy()


def _write_table(path: Path, file: FeatureFile, attention: np.ndarray, evidence: np.ndarray) -> None:
    _, side = grid_of(file)
    x, y = file.places().T
    table = pd.DataFrame({"x": x, "y": y, "side": side, "unit": file.unit})
    write_csv(path, table.assign(attention=attention.astype(float), evidence=evidence.astype(float)))


def _draw(
    path: Path, file: FeatureFile, attention: np.ndarray, evidence: np.ndarray, title: str, positive_class: str
) -> None:
    """The slide, its attention as times that of a tile like all others, and its evidence."""
    picture = file.thumbnail()
    heats = [
        Heat(_over(file, attention * len(attention), picture), "attention", None, "times that of a tile on average"),
        Heat(_over(file, evidence, picture), "evidence"),
    ]
    shown = tile_map(file, np.full(file.tiles, 200.0)) if picture is None else picture
    draw_explanation(path, shown, heats, title, positive_class, centre=False)


def _over(file: FeatureFile, values: np.ndarray, picture: np.ndarray | None) -> np.ndarray:
    """Values of tiles as a map over the slide's picture, or a px a tile; 0 where there is none, means where several."""
    cells, side = grid_of(file)
    if picture is None:
        left, top = (cells - cells.min(0)).T
        right, bottom = left + 1, top + 1
        height, width = bottom.max(), right.max()
    else:
        height, width = picture.shape[:2]
        factor = width / (file.about["size"][0] * (file.about["slide_resolution"] if file.unit == "um" else 1))
        left, top = np.floor(file.places().T * factor).astype(int)
        right, bottom = np.ceil((file.places().T + side) * factor).astype(int)
    total, counted = np.zeros((height, width)), np.zeros((height, width))
    for x0, y0, x1, y1, value in zip(left, top, right, bottom, values, strict=True):
        total[y0:y1, x0:x1] += value
        counted[y0:y1, x0:x1] += 1
    return total / np.maximum(counted, 1)


def _randomised(
    model: Model, cohort: Cohort, kept: list[float], groups: list[str | None], seed: int
) -> AttentionRecord:
    mean = mean_with_interval(kept, groups)
    depends = depends_on_weights([Randomised(share=1.0, rank_correlation=mean, ssim=Mean())])
    interval = "" if mean.ci95 is None else f" [{mean.ci95[0]:.2f}, {mean.ci95[1]:.2f}]"
    told = {
        "yes": "the attention depends on what was learnt",
        "no": "the attention hardly depends on what was learnt and is not to be believed",
        "undecided": "whether the attention depends on what was learnt is undecided",
    }
    value = "undefined" if mean.value is None else f"{mean.value:.2f}{interval}"
    line = f"with random weights the attention keeps a rank correlation of {value}"
    line += f" over {len(kept)} slides: {told[depends]}" if depends else ""
    return AttentionRecord.model_validate(
        {
            "model": model.named,
            "data": cohort.name,
            "slides": len(kept),
            "groups": len(set(groups)) if None not in groups else None,
            "seed": seed,
            "rank_correlation": mean,
            "depends_on_weights": depends,
            "line": line,
            **provenance(),
        }
    )
