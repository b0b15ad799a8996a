"""The commands under `aspire-guard review`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard.review import Decision, ReviewItem, ReviewQueue


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A queue with three tickets, which the environment names."""
    url = f"sqlite:///{tmp_path}/reviews.db"
    queue = ReviewQueue(url)
    for number in range(3):
        item = ReviewItem(question=f"{number}?\x1b[2J", answer="Ada \ud800", confidence=0.25)
        queue.submit(item)
    monkeypatch.setenv("ASPIRE_GUARD_QUEUE", url)
    return url


def test_list_shows_a_line_a_ticket(
    url: str, run_command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A page names the next one, and the characters that a terminal obeys are replaced."""
    assert run_command("review", "list", "--status", "open", "--limit", 2) == 0
    shown = capsys.readouterr()
    first = ReviewQueue(url).list()[0]
    assert shown.out.splitlines()[0] == (
        f"{first.id}  {first.created:%Y-%m-%d %H:%M}  open       0.250  0?�[2J"
    )
    assert shown.err.startswith("2 of 3 tickets; go on with --after ")
    place = shown.err.split()[-1]
    assert run_command("review", "list", "--after", place, "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["item"]["answer"] == "Ada \ud800"
    assert shown.err == "1 of 3 tickets\n"


def test_decide_and_export(
    url: str, tmp_path: Path, run_command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A decision made by the command is a labelled line."""
    ticket = ReviewQueue(url).list()[1]
    decision = ("review", "decide", ticket.id, "edit", "--text", "Bea", "--reviewer", "bea")
    assert run_command(*decision) == 0
    assert ReviewQueue(url).get(ticket.id).decision == Decision(
        action="edit", text="Bea", reviewer="bea"
    )
    output = tmp_path / "reviewed.jsonl"
    assert run_command("review", "export", output) == 0
    (line,) = map(json.loads, output.read_text("utf-8").splitlines())
    assert (line["answer"], line["correct"], line["references"]) == ("Ada \ud800", False, ["Bea"])
    capsys.readouterr()
    assert run_command("review", "decide", ticket.id, "approve", "--reviewer", "cem") == 2
    assert "expected ticket" in capsys.readouterr().err
    assert run_command("review", "decide", ticket.id, "edit", "--reviewer", "bea") == 2
    assert "pass or leave out --text" in capsys.readouterr().err


def test_verify_and_purge(
    url: str, run_command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The trail is whole before and after an erasure, and a foreign head is found out."""
    ids = [ticket.id for ticket in ReviewQueue(url).list()]
    assert run_command("review", "purge") == 2
    assert "pass --older-than, --group or --ticket" in capsys.readouterr().err
    assert run_command("review", "purge", "--older-than", "soon") == 2
    assert run_command("review", "purge", "--ticket", ids[0], "--ticket", ids[1]) == 0
    assert capsys.readouterr().out == "2 tickets erased\n"
    assert run_command("review", "verify") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("5 entries, head ")
    assert shown.endswith("the audit trail is whole\n")
    assert run_command("review", "verify", "--head", "f" * 64) == 4
    assert "the head of the earlier check is not in the trail" in capsys.readouterr().out
