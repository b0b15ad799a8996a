"""The evaluator of `AspireGuard(chain)`, on SmolLM2-135M and answers as large models write them."""

from __future__ import annotations

import pytest

from aspire_guard import AspireGuard, Exchange, SelfEvaluator
from aspire_guard.evaluators.evaluator_folder import find_starter_folder
from aspire_guard.testing import ScriptedChatModel

QUESTION = "How many requests per minute does the Free plan allow?"
CONTEXT = (
    "Requests to the Larkwire API are counted per key. A key on the Free plan may send 300 requests per minute, and a "
    "key on the Studio plan 1,200. To raise a limit, the owner of the workspace writes to the support desk."
)
DRESSES = [
    "300 requests per minute",
    "The Free plan allows 300 requests per minute.",
    "Based on the provided context, the Free plan allows **300 requests per minute** [1].",
    "Here is what I found:\n\n- The Free plan allows 300 requests per minute.\n\nI hope this helps!",
    "| Plan | Limit |\n|---|---|\n| Free | 300 requests per minute |",
]
UNGROUNDED = "You may send as many as you like, since Larkwire removed all quotas for registered developers in spring."


@pytest.fixture(scope="module")
def evaluator() -> SelfEvaluator:
    return SelfEvaluator.for_chains()


def make_exchange(answer: str) -> Exchange:
    return Exchange(question=QUESTION, context=CONTEXT, answer=answer)


def test_a_right_answer_is_released_in_every_dress(evaluator: SelfEvaluator) -> None:
    """Its confidence hardly depends on the dress, and an answer out of nowhere is withheld."""
    *scores, ungrounded = evaluator.score(
        [make_exchange(answer) for answer in (*DRESSES, UNGROUNDED)]
    )
    confidences = [score.confidence for score in scores]
    assert min(confidences) >= evaluator.threshold
    assert max(confidences) - min(confidences) <= 0.15
    assert ungrounded.confidence < evaluator.threshold


def test_the_sentence_without_support_is_named(evaluator: SelfEvaluator) -> None:
    """Users see which part of an answer they can't rely on."""
    answer = f"{DRESSES[1]} {UNGROUNDED}"
    (score,) = evaluator.score([make_exchange(answer)])
    first, second = score.sentences
    assert first.confidence >= evaluator.threshold > second.confidence
    assert answer[second.start : second.end] == UNGROUNDED


def test_the_guard_uses_it_by_default(evaluator: SelfEvaluator) -> None:
    """Around a chain of another model nothing else has to be set up."""
    guard = AspireGuard(ScriptedChatModel(DRESSES[2]), context=lambda input, output: CONTEXT)
    verdict = guard.judge(QUESTION)
    assert verdict.released
    assert verdict.threshold == evaluator.threshold


def test_a_context_of_many_passages_is_read_in_windows(evaluator: SelfEvaluator) -> None:
    """Twelve thousand tokens, more than the model's window, and the passage in their middle."""
    filler = (
        "The museum of the harbour shows nets, ropes and lamps, and opens at nine except on Mondays. "
        * 12
    )
    passages = [f"{filler} Room {number}." for number in range(42)]
    long = "\n\n".join([*passages[:21], CONTEXT, *passages[21:]])
    assert len(evaluator.aspire.reader.context_ids(long)) > evaluator.aspire.lm.max_length
    exchange = Exchange(question=QUESTION, context=long, answer=DRESSES[1])
    (score,) = evaluator.score([exchange])
    assert score.confidence >= evaluator.threshold


def test_the_two_starters_share_a_base_model_and_are_small() -> None:
    """One model in memory, and less than 30 MB in the package."""
    assert SelfEvaluator.for_chains().aspire.lm is SelfEvaluator.starter().aspire.lm
    folders = (find_starter_folder(), find_starter_folder("starter_for_chains"))
    files = [path for folder in folders for path in folder.rglob("*")]
    assert sum(path.stat().st_size for path in files) < 30_000_000
