"""What every JSON file of the product has in common: a typed model that reads and writes it under one name.

A field that a file lacks keeps its default and is not written; one that this version does not know is kept and written
back. So files of older and of newer versions open, and come out as they went in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tumortrace.errors import RunError, TumorTraceError
from tumortrace.records.files import write_json

#: A part of a record that is open: whatever JSON can hold, by name.
Open: TypeAlias = dict[str, JsonValue]


class Part(BaseModel):
    """A part of a record. Fields without default are those without which nothing can be done with it."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)  # of many, few are used

    @property
    def extra(self) -> Open:
        """Fields that this version does not know."""
        return self.model_extra or {}

    def as_json(self) -> Open:
        """The fields that were given, ready for JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


class OnDisk(BaseModel):
    """A record that is a file of its own.

    Attributes:
        FILE: The file's name.
        WHOSE: The folder that it makes, in words.
        REMEDY: What to do where it is missing.
        ERROR: What is raised where it is missing or damaged.
    """

    FILE: ClassVar[str]
    WHOSE: ClassVar[str] = "a folder of its records"
    REMEDY: ClassVar[str | None] = "check the path, or run the verb again"
    ERROR: ClassVar[type[TumorTraceError]] = RunError

    @classmethod
    def file(cls, folder: str | Path) -> Path:
        """Where it lies in a folder."""
        return Path(folder) / cls.FILE

    @classmethod
    def exists(cls, folder: str | Path) -> bool:
        """Whether the folder has one, readable or not."""
        return cls.file(folder).is_file()

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The record of a folder.

        Raises:
            RunError: It is missing, or damaged; the line names file and field.
        """
        record = cls.find(folder)
        if record is None:
            raise cls.ERROR(f"not {cls.WHOSE}: it has no {cls.FILE}", where=folder, remedy=cls.REMEDY)
        return record

    @classmethod
    def find(cls, folder: str | Path) -> Self | None:
        """The record of a folder, or None where there is none.

        Raises:
            RunError: It is damaged; the line names file and field.
        """
        return cls.read_file(cls.file(folder))

    @classmethod
    def recognise(cls, folder: str | Path) -> Self | None:
        """The record of a folder that may be anything: None also where a file of that name is something else."""
        return cls.recognise_file(cls.file(folder))

    @classmethod
    def recognise_file(cls, file: Path) -> Self | None:
        """The record in a file of any name that may be anything."""
        try:
            return cls.read_file(file)
        except RunError:
            return None

    @classmethod
    def read_file(cls, file: Path) -> Self | None:
        """The record in a file of any name, or None where there is none.

        Raises:
            RunError: It is damaged; the line names file and field.
        """
        remedy = "restore the file or run the verb again"
        try:
            # NaN and infinity, which other programs write, are values that are not defined
            content = json.loads(file.read_bytes(), parse_constant=lambda _: None)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError) as error:
            raise cls.ERROR(f"not readable as JSON ({error})", where=file, remedy=remedy) from error
        if not isinstance(content, dict):
            raise cls.ERROR("not a record", where=file, expected="a JSON object", remedy=remedy)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            fault = error.errors()[0]
            field = ".".join(str(part) for part in fault["loc"]) or "the whole"
            raise cls.ERROR(f"field {field}: {fault['msg']}", where=file, remedy=remedy) from error

    def write(self, folder: str | Path) -> Path:
        """Write it into a folder, whole or not at all; returns the file."""
        return self.write_file(self.file(folder))

    def write_file(self, file: Path) -> Path:
        """Write it under a name of its own, whole or not at all; returns the file."""
        write_json(file, self.model_dump(mode="json", exclude_unset=True))
        return file


class Record(Part, OnDisk):
    """A file that is a JSON object with named fields.

    Example:
        >>> import tempfile
        >>> class Note(Record):
        ...     FILE = "note.json"
        ...     text: str = ""
        >>> folder = tempfile.mkdtemp()
        >>> Note(text="ready", colour="blue").write(folder).name, Note.read(folder).text, Note.read(folder).extra
        ('note.json', 'ready', {'colour': 'blue'})
    """


class Made(Record):
    """A record that says under which conditions it came to be, in UTC, and that it is for research use only."""

    versions: dict[str, str] = {}
    finished: str | None = None
    research_use: str = ""
