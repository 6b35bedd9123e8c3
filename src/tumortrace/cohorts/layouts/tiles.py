"""The folder that `tumortrace tile` writes: patches of slides, a Parquet file for each, and the record of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.findings import count
from tumortrace.cohorts.labels import refuse_options
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.errors import CohortError
from tumortrace.images.reference import ImageRef
from tumortrace.records.tiles import TiledSlide, TilingRecord


class Tiles(Layout):
    """Patches of slides with the record of their cutting."""

    rank = 16
    looks_like = "a folder that `tumortrace tile` wrote"

    def recognises(self, path: Path) -> bool:
        """Whether it is a folder with the record of a tiling, finished or not."""
        return _record(path) is not None

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all tiles; groups are patients, or slides where no patient is known."""
        record = _record(path)
        assert record is not None  # as `recognises` has found
        if record.status not in ("complete", "incomplete"):
            remedy = "call `tumortrace tile` again as before"
            raise CohortError("its tiling was not finished", where=path, remedy=remedy)
        negative, positive = record.classes
        refuse_options(reading.positive, reading.merge, (negative, positive), path)
        tables = [_rows(path, slide) for slide in record.slides if slide.file]
        table = pd.concat(tables, ignore_index=True)
        failed = [slide.id for slide in record.slides if slide.failed]
        several = count(len(tables), "slide")
        notes = [f"tiles of {several}, labelled by {record.label_by}; groups are patients, or else slides"]
        notes += [f"warning: {count(len(failed), 'slide')} could not be tiled, such as {failed[0]}"] if failed else []
        name = path.absolute().name
        return Cohort(name, "tiles", table, (negative, positive), record.resolution, tuple(notes))


LAYOUTS.register("tiles")(Tiles())


def _record(path: Path) -> TilingRecord | None:
    record = TilingRecord.recognise(path)
    return record if record is not None and record.layout == "tiles" else None


def _rows(folder: Path, slide: TiledSlide) -> pd.DataFrame:
    """What is known of each tile of a slide; pictures are not read."""
    import pyarrow.parquet

    file = folder / slide.file
    try:
        names = [name for name in pyarrow.parquet.read_schema(file).names if name != "image"]
        table = pd.read_parquet(file, columns=names)
    except (OSError, ValueError) as error:
        raise CohortError(f"damaged ({error})", where=file, remedy="cut the tiles again") from None
    if len(table) != sum(slide.tiles.values()):
        found = f"{len(table):,} tiles"
        raise CohortError(found, where=file, expected=f"{sum(slide.tiles.values()):,}, as {TilingRecord.FILE} says")
    shard = str(file.absolute())
    table["path"] = [str(ImageRef(shard, str(row))) for row in range(len(table))]
    return table.drop(columns="resolution")  # the record says it, of all
