"""The benchmark that counts answers taken for refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from false_refusals import find_refusals

from aspire_guard import Exchange, Score
from aspire_trainers.data.rated_answers import read_rated_answers


class RefusalEvaluator:
    """Flags answers that begin with "Sorry"."""

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score, and make sure that no context is read."""
        assert not any(exchange.context for exchange in exchanges)
        return [
            Score(
                selection_score=0.0,
                confidence=0.5,
                declined=0.5 if exchange.answer.startswith("Sorry") else 0.49,
            )
            for exchange in exchanges
        ]


def test_the_flagged_answers_are_found(tmp_path: Path) -> None:
    """They come with their ratings."""
    lines = [
        {"question": "Who?", "context": "Ada.", "answer": text, "correct": correct}
        for text, correct in (("Ada.", True), ("Sorry, no.", True), ("Sorry.", False))
    ]
    path = tmp_path / "rated.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    found = find_refusals(RefusalEvaluator(), read_rated_answers(path))  # type: ignore[arg-type]
    assert [(each.exchange.answer, each.correct) for each in found] == [
        ("Sorry, no.", True),
        ("Sorry.", False),
    ]
