"""Bootstrap intervals of few resamples, so that tables are made at once."""

from __future__ import annotations

import answer_report
import pytest


@pytest.fixture(autouse=True)
def resamples(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(answer_report, "RESAMPLES", 20)
    return 20
