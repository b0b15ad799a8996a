"""The evaluator of `AspireGuard(chain)`, on SmolLM2-135M and answers as large models write them."""

from __future__ import annotations

import pytest
from langchain_core.runnables import RunnableLambda

from aspire_guard import AspireGuard, Exchange, SelfEvaluator, Verdict
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


# A refusal and right answers to the question in other languages.
REFUSALS = {
    "Sorry, I couldn't find that in the passages.": QUESTION,
    "The provided context does not contain the limit, so I can't answer. Please ask the desk.": QUESTION,
    "In den Unterlagen finde ich dazu leider keine Angaben.": "Wie viele Anfragen erlaubt der Free-Tarif?",
    "Les documents ne contiennent pas cette information.": "Combien de requêtes permet Free ?",
    "No lo sé según los documentos.": "¿Cuántas solicitudes permite el plan Free?",
    "Os documentos não mencionam o limite.": "Quantos pedidos permite o plano Free?",
    "根据文档,我不知道。": "Free 套餐每分钟允许多少次请求?",
}
RIGHT = {
    "No more than 300.": QUESTION,
    "300": QUESTION,
    "It does not say more than 300.": QUESTION,
    "Nicht mehr als 300.": "Wie viele Anfragen erlaubt der Free-Tarif?",
    "Pas plus de 300.": "Combien de requêtes permet Free ?",
    "El plan Free permite 300.": "¿Cuántas solicitudes permite el plan Free?",
    "300 pedidos por minuto.": "Quantos pedidos permite o plano Free?",
    "每分钟300次。": "Free 套餐每分钟允许多少次请求?",
    "Dakikada 300 istek.": "Free planı kaç isteğe izin verir?",
    "300 अनुरोध प्रति मिनट।": "Free योजना कितने अनुरोधों की अनुमति देती है?",
}


def judge_answers(questions: dict[str, str]) -> list[Verdict]:
    """Judge answers to questions in one batch, each as the answer of a chain."""
    guard = AspireGuard(RunnableLambda(lambda input: input["says"]))
    inputs = [
        {"question": question, "context": CONTEXT, "says": answer}
        for answer, question in questions.items()
    ]
    return guard.judge_batch(inputs)


def test_a_refusal_is_told_in_several_languages() -> None:
    """The verdict says so, and the refusal takes the route of its confidence."""
    verdicts = judge_answers(REFUSALS)
    assert [verdict.declined for verdict in verdicts] == [True] * len(REFUSALS)
    assert {verdict.route for verdict in verdicts} == {"abstain"}


def test_no_right_answer_is_taken_for_a_refusal() -> None:
    """Neither a short one, nor a negation, nor one in a language of which the model knows little."""
    verdicts = judge_answers(RIGHT | dict.fromkeys(DRESSES, QUESTION))
    assert not any(verdict.declined for verdict in verdicts)
    assert all(verdict.released for verdict in verdicts[-len(DRESSES) :])


def test_a_growing_refusal_is_told_as_a_finished_one(evaluator: SelfEvaluator) -> None:
    """Sentence release sees the same probability, with a context and without."""
    text = "Sorry, I couldn't find that in the passages. Please ask the desk."
    for context in (CONTEXT, None):
        extend = evaluator.score_incrementally(QUESTION, context)
        extend(text[:30])
        found = extend(text[30:]).declined
        exchange = Exchange(question=QUESTION, context=context, answer=text)
        assert found == pytest.approx(evaluator.score([exchange])[0].declined, abs=1e-3)


def test_the_two_starters_share_a_base_model_and_are_small() -> None:
    """One model in memory, and less than 30 MB in the package."""
    assert SelfEvaluator.for_chains().aspire.lm is SelfEvaluator.starter().aspire.lm
    folders = (find_starter_folder(), find_starter_folder("starter_for_chains"))
    files = [path for folder in folders for path in folder.rglob("*")]
    assert sum(path.stat().st_size for path in files) < 30_000_000
