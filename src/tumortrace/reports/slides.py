"""The report of a scanned slide, and of all slides of a call: from scan.json, slides.csv and pictures."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from tumortrace.records.files import write_bytes
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import SCANNED
from tumortrace.reports.page import REPORT, Context, embed_image, embed_picture, write_page
from tumortrace.reports.wording import called

OVERVIEW = "overview.jpg"
SHOWN = 12  # tiles of a kind
_SIDE, _THUMBNAIL = 1200, 200  # px of the longer side
_HEAT = 0.55  # of the heat over the grey slide
_ROWS = 128  # of a picture at a time, as colours take 100 bytes a px


@dataclass(frozen=True)
class TilePicture:
    """A tile as the model saw it: `image` uint8 (height, width, 3), its corner in level-0 px, what the model said."""

    image: np.ndarray
    x: int
    y: int
    probability: float
    decision: str


@dataclass(frozen=True)
class ScanPictures:
    """What a slide's report shows.

    Attributes:
        thumbnail: uint8 array (height, width, 3).
        heat: float array (height, width) in [0, 1], NaN where nothing was predicted.
        suspicious: The tiles with the highest probability, the highest first.
        referred: Those that the model refers to a person, the nearest to the threshold first.
        blurred: Those out of focus, the most blurred first.
    """

    thumbnail: np.ndarray
    heat: np.ndarray
    suspicious: list[TilePicture]
    referred: list[TilePicture]
    blurred: list[TilePicture]


def write_scan_report(folder: Path, record: ScanRecord, pictures: ScanPictures) -> Path:
    """Write `report.html` and `overview.jpg` of a slide; returns the page.

    Args:
        folder: Of the scan.
        record: Of the scan.
        pictures: Of the slide.
    """
    overview = _with_heat(pictures.thumbnail, pictures.heat)
    overview.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    overview.save(content, "JPEG", quality=88)
    write_bytes(folder / OVERVIEW, content.getvalue())
    return write_page(
        folder / REPORT,
        "scan.html.j2",
        record=record.as_json(),
        verdict=[_verdict(record)],
        positive=called(record.positive_class),
        plain=embed_image(Image.fromarray(pictures.thumbnail), _SIDE, "JPEG", quality=88),
        overview=embed_image(overview, _SIDE, "JPEG", quality=88),
        suspicious=[_shown(tile) for tile in pictures.suspicious],
        referred=[_shown(tile) for tile in pictures.referred],
        blurred=[_shown(tile) for tile in pictures.blurred],
    )


def write_slides_report(folder: Path) -> Path:
    """Write `report.html` over the slides of `slides.csv` in a folder, the most suspicious first; returns the page.

    Raises:
        RunError: There is no slides.csv, or it is damaged.
    """
    table = SCANNED.read(folder)
    table = table.astype(object).where(table.notna(), None)
    scanned = table[table["status"] == "ok"].copy()
    score = pd.to_numeric(scanned["score"])
    rows = scanned.loc[score.sort_values(ascending=False, kind="stable", na_position="last").index]
    broken = table[table["status"] != "ok"]
    script = files("tumortrace.reports").joinpath("templates", "slides.js").read_text("utf-8")
    return write_page(
        folder / REPORT,
        "slides.html.j2",
        record={},
        verdict=[f"{len(rows)} of {len(table)} slides were scanned; the most suspicious stand first."],
        slides=[_row(folder, row) for row in rows.to_dict("records")],
        broken=broken.to_dict("records"),
        labelled=bool(table["label"].notna().any()),
        divided=bool(table["split"].notna().any()),
        script=Markup(script),
        script_hash=Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
    )


def _row(folder: Path, row: dict[object, object]) -> Context:
    place = folder / str(row["folder"])
    link = f"{quote(str(row['folder']))}/{REPORT}" if (place / REPORT).is_file() else None
    told: Context = {str(name): value for name, value in row.items()}
    told |= {name: None if told[name] is None else int(told[name]) for name in ("label", "tiles")}
    told["notes"] = [] if told["notes"] is None else str(told["notes"]).split(" | ")
    return told | {"link": link, "picture": embed_picture(place, OVERVIEW, _THUMBNAIL)}


def _shown(tile: TilePicture) -> Context:
    height, width = tile.image.shape[:2]
    picture = embed_image(Image.fromarray(tile.image), max(height, width), "PNG")
    return {
        "picture": picture,
        "x": int(tile.x),
        "y": int(tile.y),
        "probability": float(tile.probability),
        "decision": tile.decision,
    }


def _with_heat(thumbnail: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The slide in grey, and the heat over it in colour."""
    picture = np.empty_like(thumbnail)
    for start in range(0, len(picture), _ROWS):
        some = slice(start, start + _ROWS)
        ground = thumbnail[some].mean(axis=2, keepdims=True)
        colours = matplotlib.colormaps["RdYlBu_r"](np.nan_to_num(heat[some]))[..., :3] * 255
        weight = np.where(np.isnan(heat[some]), 0.0, _HEAT)[..., None]
        picture[some] = (ground * (1 - weight) + colours * weight).round()
    return Image.fromarray(picture)


def _verdict(record: ScanRecord) -> str:
    if not record.tiles:
        return "No tile was looked at: no tissue was seen on this slide."
    told = f"{record.positive_tiles:,} of {record.tiles:,} tiles are called {called(record.positive_class)}"
    if record.referred_tiles:
        told += f", {record.referred_tiles:,} are referred to a person"
    if record.unfamiliar_tiles:
        told += f", {record.unfamiliar_tiles:,} are unlike the training images"
    if record.blurred_tiles and record.blurred_share is not None:
        told += f"; {record.blurred_share:.1%} of the tissue is out of focus"
    return told + "."
