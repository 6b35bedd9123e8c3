"""Features of slides: the right tiles, the same bytes after a kill, and files that CLAM and STAMP open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch

from tumortrace.cli.main import run
from tumortrace.cohorts.feature_files import FeatureFile
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.slides import embed
from tumortrace.slides.slide import Slide

BODY = ["resnet18", "--weights", "random", "--set", "preprocessing.size=32", "--patch-resolution", "1.0"]
PALE, DARK = (225, 160, 190), (90, 50, 130)


def draw(file: Path, dark: int = 2) -> Path:
    """512 x 448 px of 0.5 um: tissue at x 64..448, y 64..384, its tumour `dark` tiles wide."""
    pixels = np.full((448, 512, 3), 244, np.uint8)
    pixels[64:384, 64:448] = PALE
    pixels[128:256, 128 : 128 + 64 * dark] = DARK
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "resolutionunit": "CENTIMETER"}
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, pixels, resolution=(2e4, 2e4), metadata=None, **options)
    return file


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two slides."""
    folder = tmp_path_factory.mktemp("slides")
    for name, dark in (("a", 1), ("b", 3)):
        draw(folder / "wsi" / f"{name}.tif", dark)
    (folder / "table.csv").write_text("slide,label,patient\nwsi/a.tif,normal,p1\nwsi/b.tif,tumour,p2\n")
    return folder


@pytest.fixture(scope="module")
def plain(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their features."""
    out = tmp_path_factory.mktemp("features") / "plain"
    assert run(["embed-slides", *BODY, str(slides / "table.csv"), "-o", str(out)]) == 0
    return out


def test_every_tile_has_the_features_of_its_pixels(slides: Path, plain: Path) -> None:
    """Tiles of 32 px at 1 um are 64 px at .5: 6 x 5 of tissue; the body's numbers of one, read alone, are its row."""
    file = FeatureFile.read(plain / "b.h5")
    places = file.places()
    assert (file.tiles, file.width, file.side, file.unit, file.resolution) == (len(places), 512, 64, "px", 1.0)
    inside = {(x, y) for x in range(64, 448, 64) for y in range(64, 384, 64)}
    assert inside <= {(int(x), int(y)) for x, y in places}
    encoder = embed.encoder_of("resnet18", "random", ["preprocessing.size=32"], "cpu")
    row = next(row for row, place in enumerate(places) if tuple(place) == (128, 128))
    with Slide(slides / "wsi" / "b.tif") as slide:
        tile = slide.read_region(128, 128, 64, 64, size=(32, 32))
    np.testing.assert_allclose(file.features()[row], encoder.features(tile[None])[0], rtol=1e-4, atol=1e-5)
    assert file.weights == encoder.weights


def test_a_kill_changes_no_byte(slides: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torn in the middle of a slide, the same command goes on there; a tile that is known is not computed again."""
    monkeypatch.setattr(embed, "BATCH", 8)
    command = ["embed-slides", *BODY, str(slides / "table.csv"), "-o", str(tmp_path / "out")]
    known, append, seen = Path.read_bytes(plain / "a.h5"), embed.append, list[int]()

    def torn(file: Path, content: bytes, at: int) -> int:
        if len(seen) == 2:
            append(file, content[: len(content) // 2], at=at)
            raise KeyboardInterrupt
        seen.append(at)
        return append(file, content, at=at)

    monkeypatch.setattr(embed, "append", torn)
    assert run(command) != 0
    assert not (tmp_path / "out" / "a.h5").exists()
    monkeypatch.setattr(embed, "append", lambda file, content, at: (seen.append(at), append(file, content, at=at))[1])
    assert run(command) == 0
    assert seen[2] == 2 * 8 * 512 * 4
    undisturbed = tmp_path / "again"
    assert run([*command[:-1], str(undisturbed)]) == 0
    for name in ("a.h5", "b.h5", "slides.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (undisturbed / name).read_bytes()
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["a.h5", "b.h5", "slides.csv"]
    np.testing.assert_allclose(
        FeatureFile.read(plain / "a.h5").features(), FeatureFile.read(tmp_path / "out/a.h5").features(), atol=1e-4
    )
    assert known


def test_what_is_complete_is_not_computed_again(
    slides: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second call says so of each slide; another body into the same folder is refused in a line."""
    monkeypatch.setattr(embed, "read_tiles", None)
    before = (plain / "a.h5").read_bytes()
    assert run(["embed-slides", *BODY, str(slides / "table.csv"), "-o", str(plain)]) == 0
    assert capsys.readouterr().err.count("complete already") == 2
    other = ["embed-slides", "resnet10t", *BODY[1:], str(slides / "wsi"), "-o", str(plain)]
    assert run(other) != 0
    assert "made otherwise, such as a.h5: body resnet18, now resnet10t" in capsys.readouterr().err
    assert run(["embed-slides", *BODY, str(slides / "wsi"), "-o", str(plain), "--overlap", "0.5"]) != 0
    assert "made otherwise, such as a.h5: overlap 0.0, now 0.5; expected" in capsys.readouterr().err
    assert (plain / "a.h5").read_bytes() == before


def as_clam_reads(folder: Path, slide: str, h5: bool) -> tuple[torch.Tensor, np.ndarray | None]:
    """What CLAM's Generic_MIL_Dataset takes: pt_files, or h5_files with features and coords."""
    if not h5:
        return torch.load(folder / "pt_files" / f"{slide}.pt"), None
    with h5py.File(folder / "h5_files" / f"{slide}.h5", "r") as file:
        return torch.from_numpy(file["features"][:]), file["coords"][:]


def as_stamp_reads(file: Path) -> tuple[torch.Tensor, np.ndarray, float, float]:
    """What STAMP's BagDataset and get_coords take: feats, coords in um, the side in um, um per px of tiles."""
    with h5py.File(file, "r") as opened:
        assert opened.attrs.get("feat_type") == "tile"
        assert "encoder" not in opened.attrs
        assert tuple(int(part) for part in str(opened.attrs["stamp_version"]).split(".")) <= (2, 1, 0)
        side = float(opened.attrs["tile_size_um"])
        return (
            torch.from_numpy(opened["feats"][:]).float(),
            opened["coords"][:],
            side,
            side / int(opened.attrs["tile_size_px"]),
        )


def test_clam_and_stamp_read_what_we_write(slides: Path, plain: Path, tmp_path: Path) -> None:
    """The same features and places by the readers of each; px of full resolution, or um."""
    for layout in ("clam", "stamp"):
        out = str(tmp_path / layout)
        assert run(["embed-slides", *BODY, str(slides / "table.csv"), "--layout", layout, "-o", out]) == 0
    ours = FeatureFile.read(plain / "b.h5")
    tensor, _ = as_clam_reads(tmp_path / "clam", "b", h5=False)
    features, places = as_clam_reads(tmp_path / "clam", "b", h5=True)
    assert places is not None
    assert np.array_equal(places, ours.places())
    assert np.issubdtype(places.dtype, np.integer)
    for read in (tensor, features):
        np.testing.assert_array_equal(read.numpy(), ours.features())
    with h5py.File(tmp_path / "clam" / "h5_files" / "b.h5") as file:
        stated = {name: int(file["coords"].attrs[name]) for name in ("patch_size", "patch_level", "patch_size_level0")}
    assert stated == {"patch_size": 64, "patch_level": 0, "patch_size_level0": 64}
    feats, um, side, mpp = as_stamp_reads(tmp_path / "stamp" / "b.h5")
    np.testing.assert_array_equal(feats.numpy(), ours.features())
    np.testing.assert_allclose(um, ours.places() * 0.5)
    assert (side, mpp) == (32.0, 1.0)
    for layout in ("clam", "stamp"):
        cohort = open_cohort(tmp_path / layout)
        assert cohort.table["label"].tolist() == [0, 1]
        assert cohort.preparation == open_cohort(plain).preparation


@pytest.mark.parametrize("whose", ["clam", "trident", "stamp"])
def test_what_others_write_is_read(whose: str, tmp_path: Path) -> None:
    """Files as CLAM, TRIDENT and STAMP lay them out, with the tables that they want beside them."""
    features, coords = (
        np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32),
        np.arange(12).reshape(6, 2) * 256,
    )
    homes = {"clam": "h5_files", "trident": "20x_256px_0px_overlap/features_uni_v1", "stamp": "uni"}
    home = tmp_path / homes[whose]
    home.mkdir(parents=True)
    for number, name in enumerate(("c1", "c2.x")):
        with h5py.File(home / f"{name}.h5", "w") as file:
            file["feats" if whose == "stamp" else "features"] = features + number
            file["coords"] = coords * 0.5 if whose == "stamp" else coords
            if whose == "stamp":
                file.attrs.update({"stamp_version": "2.3.0", "extractor": "uni", "unit": "um", "feat_type": "tile"})
                file.attrs.update({"tile_size_um": 128.0, "tile_size_px": 224})
            else:
                file["coords"].attrs.update({"patch_size": 256, "patch_level": 0})
            if whose == "trident":
                file["coords"].attrs.update({"patch_size": 256, "patch_size_level0": 512})
                (tmp_path / "20x_256px_0px_overlap/patches").mkdir(exist_ok=True)
                with h5py.File(tmp_path / f"20x_256px_0px_overlap/patches/{name}_patches.h5", "w") as patches:
                    patches["coords"] = coords
    (tmp_path / "dataset.csv").write_text("case_id,slide_id,label\np1,c1,normal\np2,c2.x.svs,tumour\np3,c3,tumour\n")
    cohort = open_cohort(tmp_path)
    assert cohort.table[["id", "label", "group"]].to_numpy().tolist() == [["c1", 0, "p1"], ["c2.x", 1, "p2"]]
    assert any("1 of its 3 slides have no features" in note for note in cohort.notes)
    file = FeatureFile.read(Path(cohort.table["path"][1]))
    np.testing.assert_array_equal(file.features(), features + 1)
    side = {"clam": (256.0, "px"), "trident": (512.0, "px"), "stamp": (128.0, "um")}[whose]
    assert (file.side, file.unit) == side


def test_no_label_and_no_tissue_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slide of bare glass has a file without tiles; a body without a resolution is asked for it, in one line."""
    tifffile.imwrite(tmp_path / "g.tif", np.full((256, 256, 3), 244, np.uint8), photometric="rgb")
    assert run(["embed-slides", *BODY, str(tmp_path / "g.tif"), "--resolution", "0.5", "-o", str(tmp_path / "o")]) == 0
    assert "0 tiles" in capsys.readouterr().err
    with h5py.File(tmp_path / "o" / "g.h5") as file:
        assert file["features"].shape == (0, 512)
        assert json.loads(file.attrs["tumortrace"])["body"] == "resnet18"
    assert run(["embed-slides", *BODY[:-2], str(tmp_path / "g.tif"), "-o", str(tmp_path / "p")]) != 0
    assert "--patch-resolution" in capsys.readouterr().err
