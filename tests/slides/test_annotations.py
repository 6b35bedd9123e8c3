"""Annotations of QuPath, ASAP and label masks give the areas that were drawn."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import Polygon, box
from skimage.draw import disk

from tests.slides import drawn as write
from tumortrace.errors import SlideError
from tumortrace.slides.annotations import read_annotations
from tumortrace.slides.annotations.tracing import trace

SIZE = (400, 300)
RING = Polygon([(40, 40), (160, 40), (160, 160), (40, 160)], [[(80, 80), (120, 80), (120, 120), (80, 120)]])
DRAWN = [("Tumor", RING), ("Tumor", box(200, 40, 280, 100)), ("Stroma", box(200, 200, 300, 280))]
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def _area(regions, name):
    return shapely.union_all([region.geometry for region in regions if region.name == name])


def _feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _read(folder, content, notes=None):
    file = folder / "a.geojson"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(file, SIZE, notes)


@pytest.mark.parametrize("version", write.VERSIONS)
@pytest.mark.parametrize("colour", [True, False])
def test_every_version_of_qupath_gives_what_was_drawn(tmp_path, version, colour):
    file = write.qupath(tmp_path / "a.geojson", DRAWN, version, colour=colour, packed=colour)
    regions = read_annotations(file, SIZE)
    assert [region.name for region in regions] == ["Tumor", "Tumor", "Stroma"]
    assert all(region.geometry.equals(polygon) for region, (_, polygon) in zip(regions, DRAWN, strict=True))


@pytest.mark.parametrize("comma", [True, False])
@pytest.mark.parametrize("exclusion", ["_2", "Exclusion"])
def test_asap_takes_exclusions_out_and_reads_points_by_their_order(tmp_path, comma, exclusion):
    regions = read_annotations(write.asap(tmp_path / "a.xml", DRAWN, comma=comma, exclusion=exclusion), SIZE)
    assert [region.name for region in regions] == ["Tumor", "Tumor", "Stroma"]
    assert all(region.geometry.equals(polygon) for region, (_, polygon) in zip(regions, DRAWN, strict=True))


def test_a_mask_at_half_size_gives_what_was_drawn(tmp_path):
    file = write.mask(tmp_path / "a.png", DRAWN, SIZE, {"Tumor": 1, "Stroma": 2}, step=2)
    regions = read_annotations(file, SIZE, [])
    assert _area(regions, "1").equals(_area_of("Tumor"))
    assert _area(regions, "2").equals(_area_of("Stroma"))


def _area_of(name):
    return shapely.union_all([polygon for kind, polygon in DRAWN if kind == name])


def test_a_mask_of_zero_and_255_is_tumour_and_one_of_zero_and_one_is_not_guessed(tmp_path):
    marked = np.zeros((300, 400), np.uint8)
    marked[10:20, 30:50] = 255
    Image.fromarray(marked).save(tmp_path / "a.png")
    Image.fromarray(marked > 0).save(tmp_path / "bits.png")
    Image.fromarray(marked // 255).save(tmp_path / "one.png")
    names = [read_annotations(tmp_path / name, SIZE)[0].name for name in ("a.png", "bits.png", "one.png")]
    assert names == ["tumor", "tumor", "1"]


@pytest.mark.parametrize("options", [{"tile": (64, 64), "compression": "deflate"}, {"rowsperstrip": 7}, {}])
def test_tiles_and_strips_of_a_tiff_join_without_seams(tmp_path, options):
    marked = np.zeros((300, 400), np.uint8)
    marked[disk((150, 200), 120)] = 255
    marked[disk((150, 200), 30)] = 0
    tifffile.imwrite(tmp_path / "a.tif", marked, **options)
    (region,) = read_annotations(tmp_path / "a.tif", (800, 600), [])
    assert region.geometry.area == 4 * int((marked > 0).sum())
    assert region.geometry.geom_type == "Polygon"
    assert len(region.geometry.interiors) == 1


def test_a_mask_in_which_the_largest_number_is_black_is_read_the_right_way_round(tmp_path):
    marked = np.full((300, 400), 255, np.uint8)
    marked[10:20, 30:50] = 0
    tifffile.imwrite(tmp_path / "a.tif", marked, photometric="miniswhite")
    (region,) = read_annotations(tmp_path / "a.tif", SIZE)
    assert region.geometry.equals(box(30, 10, 50, 20))


def test_traced_outlines_hold_the_px_that_were_marked_and_no_others():
    mask = np.random.default_rng(0).random((60, 80)) < 0.5
    area = trace(mask)
    assert area.is_valid
    y, x = np.mgrid[0:60, 0:80] + 0.5
    assert (shapely.contains_xy(area, x, y) == mask).all()
    assert area.area == mask.sum()


def test_collections_multipolygons_and_bare_geometries(tmp_path):
    polygon, other = {"type": "Polygon", "coordinates": [SQUARE]}, [[[x + 50, y] for x, y in SQUARE]]
    several = {"type": "MultiPolygon", "coordinates": [[SQUARE], other]}
    collection = {"type": "GeometryCollection", "geometries": [polygon, {"type": "Point", "coordinates": [1, 1]}]}
    notes = []
    regions = _read(tmp_path, [_feature(several, classification={"name": "Tumor"}), _feature(collection)], notes)
    assert sorted((region.name, region.geometry.area) for region in regions) == [
        ("", 100),
        ("Tumor", 100),
        ("Tumor", 100),
    ]
    assert notes == ["a.geojson: left out: point (1)"]
    assert [region.geometry.area for region in _read(tmp_path, polygon)] == [100]
    assert _read(tmp_path, {"type": "FeatureCollection", "features": []}) == []


def test_cells_are_taken_and_tma_cores_and_tiles_are_not(tmp_path):
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    kinds = ("annotation", "detection", "cell", "tile", "tmaCore")
    notes = []
    features = [_feature(polygon, objectType=kind, classification={"names": ["Tumor", "Positive"]}) for kind in kinds]
    regions = _read(tmp_path, features, notes)
    assert [region.name for region in regions] == ["Tumor: Positive"] * 3
    assert notes == [
        "a.geojson: 1 detection and 1 cell taken as annotations are",
        "a.geojson: left out: tile (1), TMA core (1)",
    ]


def test_an_outline_that_crosses_itself_is_mended_and_one_beyond_the_slide_cut(tmp_path, capsys):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]]}
    beyond = {"type": "Polygon", "coordinates": [[[390, 0], [450, 0], [450, 10], [390, 10], [390, 0]]]}
    regions = _read(tmp_path, [_feature(bow), _feature(beyond)])
    assert [region.geometry.area for region in regions] == [200, 100]
    assert "1 self-crossing outline mended" in (said := capsys.readouterr().err)
    assert "cut off at the slide's edge: 1 outline" in said


def test_a_zip_of_qupath_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write.qupath(tmp_path / "a.geojson", DRAWN), "a.geojson")
    assert len(read_annotations(tmp_path / "a.zip", SIZE)) == 3


FAR = [[5000, 5000], [6000, 5000], [6000, 6000], [5000, 5000]]
ENTITY = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><ASAP_Annotations>&b;</ASAP_Annotations>'
BAD = {
    "a.geojson": [
        ("{", "not GeoJSON"),
        ("[1]", "not GeoJSON"),
        ('{"type": "Topology"}', "not GeoJSON (type 'Topology')"),
        ("[" * 100_000, "not GeoJSON"),
        (json.dumps(_feature({"type": "Polygon", "coordinates": [[[0, "a"], [1, 1], [2, 0]]]})), "not GeoJSON"),
        (json.dumps(_feature({"type": "Polygon", "coordinates": [[[0, float("nan")], [1, 1], [2, 0]]]})), "no numbers"),
        (json.dumps(_feature({"type": "Polygon", "coordinates": [FAR]})), "all outlines outside of the slide"),
        ("", "the file is empty"),
    ],
    "a.xml": [
        ("<Annotations><Annotation/></Annotations>", "outermost element is Annotations (Aperio ImageScope"),
        ("<ASAP_Annotations><Annotations>", "not XML of ASAP"),
        (ENTITY, "document type"),
        (
            '<ASAP_Annotations><Annotation><Coordinate Order="0" X="a" Y="1"/></Annotation></ASAP_Annotations>',
            "a coordinate",
        ),
    ],
}


@pytest.mark.parametrize(("name", "content", "told"), [(name, *row) for name, rows in BAD.items() for row in rows])
def test_what_is_no_annotation_is_told_in_a_line(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(SlideError, match=re.escape(told)) as raised:
        read_annotations(tmp_path / name, SIZE)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (np.random.default_rng(0).integers(0, 9, (30, 40, 3)).astype(np.uint8), "a mask of colours"),
        (np.random.default_rng(0).integers(0, 999, (60, 80)).astype(np.uint16), "more than 256 values"),
        (np.ones((50, 50), np.uint8), "a mask of 50 x 50 px for a slide of 400 x 300 px"),
        (np.full((30, 40), 0.5, np.float32), "a mask of fractions"),
    ],
)
def test_a_picture_that_is_no_mask_is_told_in_a_line(tmp_path, picture, told):
    tifffile.imwrite(tmp_path / "a.tif", picture)
    with pytest.raises(SlideError, match=told):
        read_annotations(tmp_path / "a.tif", SIZE)


def test_a_damaged_mask_is_told_in_a_line(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(20))
    with pytest.raises(SlideError, match="no picture that can be read as a mask"):
        read_annotations(tmp_path / "a.tif", SIZE)
    with pytest.raises(SlideError, match="no such file"):
        read_annotations(Path(tmp_path / "none.xml"), SIZE)
