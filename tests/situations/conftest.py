"""A fake model for scans by a command, in situations in which only what is asked of it matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.slides.test_scan import dark_share, fake_model

Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Takes a function, and what the model states otherwise, for the model that commands load; no heat map is drawn."""

    def use(predict: Callable[[np.ndarray], np.ndarray] = dark_share, **changes: Any) -> None:
        model = fake_model(predict, **changes)
        model.require_preparation = lambda *_: None
        monkeypatch.setattr("tumortrace.models.bundle.load_model", lambda *_, **__: model)

    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))
    monkeypatch.setattr("tumortrace.reports.report.renew_report", lambda *_: None)
    use()
    return use
