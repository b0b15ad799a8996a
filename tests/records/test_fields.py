"""The context of a record in the shapes that retrievers give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aspire_guard.errors import DatasetError
from aspire_guard.records.fields import parse_context


@pytest.mark.parametrize(
    ("context", "text"),
    [
        (" A. ", "A."),
        (["A.", "B."], "A.\n\nB."),
        ([["A.", 0.9], ["B.", 0]], "A.\n\nB."),
        ([[{"page_content": "A."}, 0.9]], "A."),
        ([{"page_content": "A.", "metadata": {"source": "a"}}, "B."], "A.\n\nB."),
        (["A.", 0.9], "A."),
        ([("A.", 0.9)], "A."),
        ({"text": "A."}, "A."),
        ([" ", {"content": "B."}], "B."),
        ([["A.", "B."], ["C."]], "A.\n\nB.\n\nC."),
        ([], None),
        (" ", None),
        (None, None),
    ],
)
def test_a_context_is_a_text_or_passages(context: Any, text: str | None) -> None:
    """Passages are joined by a blank line, and scores are left out."""
    assert parse_context(Path("a.jsonl"), 3, {"context": context}) == text


@pytest.mark.parametrize(
    ("context", "found"),
    [
        (5, "found the number 5"),
        (["A.", "B.", 2], "found the number 2 in the list"),
        ([{"passage": "A."}], "found an object in the list"),
        ({"passage": "A."}, "found an object"),
        (["A\ud800"], "found half a surrogate pair"),
    ],
)
def test_another_shape_is_named(context: Any, found: str) -> None:
    """The error names the line and the thing that is no passage."""
    with pytest.raises(
        DatasetError, match=r"a\.jsonl, line 3: expected \"context\" to hold"
    ) as caught:
        parse_context(Path("a.jsonl"), 3, {"context": context})
    assert found in str(caught.value)
