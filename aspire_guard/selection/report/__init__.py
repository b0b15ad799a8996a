"""The HTML report on scored answers: a file that needs no network and no script."""

from __future__ import annotations

from aspire_guard.selection.report.page import TARGET_RISKS, write_report

__all__ = ["TARGET_RISKS", "write_report"]
