"""The tables of a run folder and of what else is written: one row here for each, with its name and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tumortrace.errors import RunError
from tumortrace.records.files import write_csv

if TYPE_CHECKING:
    import pandas as pd

#: Columns that are names in every table, and so text where they look like numbers.
NAMES = (
    "id",
    "group",
    "split",
    "decision",
    "recipe",
    "run",
    "digest",
    "image",
    "path",
    "member",
    "label_name",
    "class",
    "predicted_class",
    "class_set",
    "centre",
    "patient",
    "folder",
    "reason",
)
#: Columns that had another name in earlier versions.
RENAMED = {"ood": "ood_score"}


@dataclass(frozen=True)
class Table:
    """A CSV file of one name; ids and groups are text, a blank cell is missing, and every digit of a number is kept.

    Attributes:
        name: Of the file.
        columns: That come first, in this order, where a table has them.

    Example:
        >>> import pandas as pd, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = SPLITS.write(folder, pd.DataFrame({"id": ["007"], "group": [None], "split": ["test"]}))
        >>> SPLITS.read(folder)["id"].tolist(), len(HISTORY.find(folder))
        (['007'], 0)
    """

    name: str
    columns: tuple[str, ...] = ()

    def file(self, folder: str | Path) -> Path:
        """Where it lies in a folder."""
        return Path(folder) / self.name

    def read(self, folder: str | Path) -> pd.DataFrame:
        """The table of a folder.

        Raises:
            RunError: It is missing, or no table.
        """
        return read_table(self.file(folder))

    def find(self, folder: str | Path) -> pd.DataFrame:
        """The table of a folder; empty where there is none.

        Raises:
            RunError: The file is no table.
        """
        import pandas as pd

        file = self.file(folder)
        return read_table(file) if file.is_file() else pd.DataFrame()

    def write(self, folder: str | Path, table: pd.DataFrame) -> Path:
        """Write it into a folder, whole or not at all; returns the file."""
        first = [name for name in self.columns if name in table]
        write_csv(self.file(folder), table[[*first, *(name for name in table if name not in first)]])
        return self.file(folder)


def read_table(file: Path) -> pd.DataFrame:
    """A CSV record of any name.

    Raises:
        RunError: It is missing, or no table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(file, dtype=dict.fromkeys(NAMES, "string"), keep_default_na=False, na_values=[""])
        return table.rename(columns=RENAMED)
    except FileNotFoundError:
        raise RunError(f"no {file.name}", where=file.parent, remedy="restore the file or run the verb again") from None
    except (ValueError, OSError) as error:
        raise RunError(f"not a table ({error})", where=file, remedy="restore the file or run the verb again") from error


_CALLS = ("id", "group", "split", "label", "probability", "prediction", "decision")

PREDICTIONS = Table("predictions.csv", _CALLS)
SPLITS = Table("splits.csv", ("id", "group", "split"))
SEEN = Table("seen.csv", ("digest", "split"))
HISTORY = Table("history.csv", ("epoch",))
IMPORTANCES = Table("importances.csv")
FEATURE_IMPORTANCES = Table("feature_importances.csv")
FEW_SHOT = Table("few_shot.csv", ("shots", "repeat"))
FEATURE_MAP = Table("feature_map.csv", ("x", "y", "label", "group"))
CENTRES = Table("centres.csv", ("id", "centre", "kind", "group"))
FOLDS = Table("folds.csv")
SUBSETS = Table("subsets.csv", ("repeat", "fraction", "id"))
LEARNING_CURVE = Table("learning_curve.csv")
TRIALS = Table("trials.csv")
TILES = Table("tiles.csv")
SLIDES = Table("slides.csv", ("slide",))
SCANNED = Table("slides.csv", ("id", "path", "label", "patient", "split", "status", "reason"))
MEASURES = Table("measures.csv")
SAMPLE = Table("sample.csv")
QUARANTINE = Table("quarantine.csv")
SECOND_LOOK = Table("second_look.csv")
LABELS = Table("labels.csv")
FAILED = Table("failed.csv", ("id", "path", "reason"))
COHORT = Table("cohort.csv")
CORRECTIONS = Table("corrections.csv")
