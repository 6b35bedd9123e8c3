"""Where the trials of a search are kept, and the locks by which processes and machines share them."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from tumortrace.errors import MissingDependencyError, RunError
from tumortrace.records.lock import locked, take

if TYPE_CHECKING:
    from filelock import FileLock

_EXPECTED = "the path of a journal file, or postgresql://USER@HOST/DATABASE"
_ANSWERED = "-c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6"
"""So that the locks of a machine that has lost its power are let go of after two minutes."""


class Held(Protocol):
    """A lock that is held; it is let go of when its process ends, however it ends."""

    def release(self) -> None:
        """Let go of it."""


class Place(Protocol):
    """Where a study is kept; pickle takes it, for workers.

    Attributes:
        told: As records and messages name it, without a password.
        shared: Whether machines work on it that do not share the study's folder.
    """

    @property
    def told(self) -> str: ...
    @property
    def shared(self) -> bool: ...

    def storage(self) -> BaseStorage:
        """Optuna's storage.

        Raises:
            RunError: It cannot be had.
        """

    def locked(self) -> AbstractContextManager[None]:
        """The lock under which processes claim trials, one after the other."""

    def take(self, number: int) -> Held | None:
        """The lock of a trial, taken, or None where another process holds it."""


def study_lock(folder: Path) -> AbstractContextManager[None]:
    """The lock under which processes write the records of a study's folder, one after the other."""
    return locked(folder / "study.lock")


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial keeps its recipe, history and checkpoints."""
    return folder / "trials" / f"{number:04}"


def place_of(storage: str | None, name: str, folder: Path) -> Place:
    """The place that `--storage` names.

    Args:
        storage: A journal file, an URL of PostgreSQL, or None: the study's folder.
        name: Of the study.
        folder: The study's.

    Raises:
        RunError: It names none of them.

    Example:
        >>> place_of("postgresql://ada:secret@db/lab", "mine", Path("runs")).told
        'postgresql://ada@db/lab'
    """
    if storage is None:
        return FolderPlace(folder)
    if storage.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
        return DatabasePlace(storage, name)
    if "://" in storage or not storage.strip():
        kind = storage.partition("://")[0]
        raise RunError(f"--storage {kind}", expected=_EXPECTED, remedy="name one of them")
    return JournalPlace(Path(storage).expanduser().absolute(), name)


class FolderPlace:
    """A SQLite file in the study's folder, for processes of one machine.

    Args:
        folder: The study's.
    """

    shared = False

    def __init__(self, folder: Path) -> None:
        self._folder, self.told = folder, str(folder)

    def storage(self) -> BaseStorage:
        """See `Place`."""
        file = self._folder / "study.db"
        # A creator instead of an URL, in which some characters of the path would mean something.
        options = {"creator": lambda: sqlite3.connect(file, timeout=120, check_same_thread=False)}
        return RDBStorage("sqlite://", engine_kwargs=options)

    def locked(self) -> AbstractContextManager[None]:
        """See `Place`."""
        return study_lock(self._folder)

    def take(self, number: int) -> FileLock | None:
        """See `Place`."""
        path = trial_folder(self._folder, number) / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return take(path)


class JournalPlace:
    """A journal on a folder that machines share; locks lie beside it.

    Args:
        file: The journal.
        name: Of the study.
    """

    shared = True

    def __init__(self, file: Path, name: str) -> None:
        self._file, self._locks, self.told = file, Path(f"{file}.locks"), str(file)
        self._name = name

    def storage(self) -> BaseStorage:
        """See `Place`."""
        try:
            if self._file.exists():
                self._require_journal()
            self._locks.mkdir(exist_ok=True)
            lock: Any = _JournalLock(self._file)  # of no class that optuna makes public
            return JournalStorage(JournalFileBackend(self.told, lock_obj=lock))
        except OSError as error:
            remedy = "name a file in a folder that all machines see and may write"
            raise RunError(f"no journal ({error.strerror})", where=self.told, remedy=remedy) from None

    def _require_journal(self) -> None:
        with open(self._file, "rb") as file:
            first = file.readline(4096)
        if first and not first.startswith(b'{"op_code":'):
            found, expected = "a file that is no journal", "a journal that `tune` made, or a name not in use"
            raise RunError(found, where=self.told, expected=expected, remedy="name another file")

    def locked(self) -> AbstractContextManager[None]:
        """See `Place`."""
        return locked(self._locks / f"{self._name}.lock")

    def take(self, number: int) -> FileLock | None:
        """See `Place`."""
        return take(self._locks / f"{self._name}-{number:04}.lock")


class _JournalLock:
    """Writes to a journal, one after the other; a line that a kill has torn is cut off before the next is written."""

    def __init__(self, file: Path) -> None:
        from filelock import FileLock

        self._file, self._lock = file, FileLock(f"{file}.lock")

    def acquire(self) -> bool:
        """Take the lock."""
        self._lock.acquire()
        with open(self._file, "r+b") as journal:
            end = journal.seek(0, os.SEEK_END)
            while end and (journal.seek(end - 1), journal.read(1))[1] != b"\n":
                end -= 1
            journal.truncate(end)
        return True

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()


class DatabasePlace:
    """A PostgreSQL server; locks are its advisory locks, which it lets go of when a connection ends.

    The password is kept apart, so that nothing that names the place can tell it.

    Args:
        url: Of the database; without a password libpq looks into PGPASSWORD and ~/.pgpass.
        name: Of the study.
    """

    shared = True

    def __init__(self, url: str, name: str) -> None:
        from sqlalchemy import URL, make_url
        from sqlalchemy.exc import ArgumentError

        try:
            named = make_url(url.replace("postgres://", "postgresql://", 1))
        except (ArgumentError, ValueError):
            raise RunError("--storage is no URL", expected=_EXPECTED, remedy="correct it") from None
        secrets = {key for key in named.query if "password" in key.lower()}
        given = named.password or next((str(named.query[key]) for key in secrets if key == "password"), None)
        query = {key: value for key, value in named.query.items() if key not in secrets}
        bare = URL.create("postgresql", named.username, None, named.host, named.port, named.database, query)
        self.told = bare.render_as_string()
        self._options = {"options": _ANSWERED, "connect_timeout": 10, **({"password": given} if given else {})}
        self._key = zlib.crc32(name.encode()) - 2**31

    def storage(self) -> BaseStorage:
        """See `Place`."""
        with self.locked():  # two that make the tables at once fail
            pooled = {"connect_args": self._options, "pool_pre_ping": True}
            return RDBStorage(self.told.replace("://", "+psycopg://", 1), engine_kwargs=pooled)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Place`."""
        held = self._held("pg_advisory_lock", 0)
        try:
            yield
        finally:
            if held is not None:
                held.release()

    def take(self, number: int) -> Held | None:
        """See `Place`."""
        return self._held("pg_try_advisory_lock", number + 1)

    def _held(self, function: str, number: int) -> _Connection | None:
        """A connection that holds a lock; None where another does."""
        psycopg = _driver()
        with reached(self):
            connection = psycopg.connect(self.told, autocommit=True, **self._options)
            (taken,) = connection.execute(f"SELECT {function}(%s, %s)", (self._key, number)).fetchone()
        if taken is False:
            connection.close()
            return None
        return _Connection(connection)


class _Connection:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def release(self) -> None:
        self._connection.close()


def _driver() -> Any:
    try:
        import psycopg
    except ImportError:
        raise MissingDependencyError(
            "--storage postgresql:// needs psycopg", remedy="pip install 'tumortrace[postgres]'"
        ) from None
    return psycopg


@contextmanager
def reached(place: Place) -> Iterator[None]:
    """Turn what a server refuses, or its silence, into one line."""
    from sqlalchemy.exc import SQLAlchemyError

    refusals: tuple[type[Exception], ...] = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
    if isinstance(place, DatabasePlace):
        refusals += (_driver().Error,)
    try:
        yield
    except refusals as error:
        cause: BaseException = error
        while (deeper := getattr(cause, "orig", None) or cause.__cause__) is not None:
            cause = deeper
        reason = " ".join(str(cause).split("\n")[0].split()) or type(cause).__name__
        remedy = "see that the server runs, that this machine may reach it and that the database is there; a password"
        remedy += " is taken from PGPASSWORD or ~/.pgpass; trials begun are taken up by `tune --resume`"
        raise RunError(f"the server cannot be used ({reason})", where=place.told, remedy=remedy) from None
