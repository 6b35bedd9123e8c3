"""A server on the small run, without a network between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tumortrace.app.server import create_app
from tumortrace.app.settings import Settings

BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def client(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a server on the small run, on loopback and without a token."""
    settings = Settings((small_run,), workspace=tmp_path_factory.mktemp("workspace"))
    with TestClient(create_app(settings), base_url=BASE) as client:
        yield client


@pytest.fixture(scope="session")
def patches(tissue: Path) -> list[Path]:
    """Files of synthetic patches."""
    return sorted((tissue / "patches").rglob("*.png"))
