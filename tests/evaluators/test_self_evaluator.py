"""The learned self-evaluator: its selection score, its confidence, and the same score in any batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import save_evaluator
from aspire_guard.evaluators.protocol import Evaluator, NamedThreshold
from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.exchange import Exchange
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Abstain, Accept, Band
from aspire_guard.selection.calibration import Guarantee, Threshold
from aspire_guard.testing import FAMILIES, Family, tiny_evaluator, tiny_lm
from aspire_guard.verdict import Score

# The numbers of a score.
NUMBERS = {"selection_score", "confidence", "log_likelihood", "p_correct"}


def _assert_close(found: list[Score], expected: list[Score]) -> None:
    names = ("selection_score", "confidence", "log_likelihood", "p_correct")
    for score, expected_score in zip(found, expected, strict=True):
        values = [getattr(score, name) for name in names]
        expected_values = [getattr(expected_score, name) for name in names]
        assert values == pytest.approx(expected_values, abs=1e-4)


def _full_forward_likelihood(evaluator: SelfEvaluator, exchange: Exchange) -> float:
    """Return the mean log-probability of the answer and its end token after `[θp ; x]`, by one full forward pass."""
    lm, task = evaluator.aspire.lm, evaluator.aspire.task
    assert task is not None
    passage = f"Passage: {exchange.context}\n" if exchange.context else ""
    prompt = lm.tokenizer("").input_ids
    for piece in (passage, f"Question: {exchange.question}\nAnswer:"):
        prompt = prompt + lm.tokenizer(piece, add_special_tokens=False).input_ids
    answer = f" {exchange.answer}" if exchange.answer else ""
    answer_ids = [
        *lm.tokenizer(answer, add_special_tokens=False).input_ids,
        lm.tokenizer.eos_token_id,
    ]
    embeddings = torch.cat([task.vectors(lm), lm.embed(torch.tensor([*prompt, *answer_ids]))])
    logits = lm.model(inputs_embeds=embeddings[None]).logits[0]
    log_p = logits.log_softmax(-1)[-len(answer_ids) - 1 : -1]
    return float(log_p.gather(-1, torch.tensor(answer_ids)[:, None]).mean())


def test_the_selection_score_blends_in_log_space() -> None:
    """g = (1 − α)·log f_norm + α·log P(z_c), by hand."""
    assert selection_score(-2.0, -0.5, 0.25) == -1.625
    assert selection_score(-2.0, -0.5, 0.5) == -1.25


def test_the_ends_of_alpha_are_exact() -> None:
    """At α = 0 g is the likelihood and at α = 1 the self-evaluation, even if the other part is −∞."""
    assert selection_score(-0.1, -math.inf, 0.0) == -0.1
    assert selection_score(-math.inf, -0.1, 1.0) == -0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_alpha_zero_is_the_adapted_perplexity(family: Family, exchanges: list[Exchange]) -> None:
    """The score is exactly the log-likelihood, which an independent full forward pass confirms."""
    evaluator = tiny_evaluator(family, alpha=0.0)
    scores = evaluator.score(exchanges)
    assert [score.selection_score for score in scores] == [score.log_likelihood for score in scores]
    expected = [_full_forward_likelihood(evaluator, exchange) for exchange in exchanges]
    assert [score.selection_score for score in scores] == pytest.approx(expected, abs=1e-4)


def test_alpha_one_is_pure_self_evaluation(exchanges: list[Exchange]) -> None:
    """The score is exactly log P(z_c | x, ŷ)."""
    evaluator = tiny_evaluator(alpha=1.0)
    scores = evaluator.score(exchanges)
    rows = [(exchange.question, exchange.context, exchange.answer) for exchange in exchanges]
    expected = evaluator.aspire.score(rows)[1]
    assert [score.selection_score for score in scores] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [score.p_correct for score in scores] == [
        math.exp(score.selection_score) for score in scores
    ]


def test_alpha_blends_the_two_parts_of_a_score(exchanges: list[Exchange]) -> None:
    """The parts don't depend on α, and the score and the confidence are computed from them."""
    likelihood, judgement = (tiny_evaluator(alpha=alpha).score(exchanges) for alpha in (0.0, 1.0))
    for score, zero, one in zip(
        tiny_evaluator(alpha=0.25).score(exchanges), likelihood, judgement, strict=True
    ):
        g = 0.75 * zero.selection_score + 0.25 * one.selection_score
        assert score.selection_score == pytest.approx(g, abs=1e-12)
        assert score.confidence == pytest.approx(1 / (1 + math.exp(-(0.5 * g + 1.0))), abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_its_exchanges_give_alone(
    family: Family, exchanges: list[Exchange]
) -> None:
    """A score depends neither on the batch nor on the order, and comes back in the order of the call."""
    evaluator = tiny_evaluator(family)
    alone = [evaluator.score([exchange])[0] for exchange in exchanges]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        _assert_close(evaluator.score([exchanges[i] for i in order]), [alone[i] for i in order])


def test_many_exchanges_are_split_into_batches(exchanges: list[Exchange]) -> None:
    """The scores come back in order even if the tokens are too many for one batch."""
    evaluator = tiny_evaluator()
    many = [exchanges[i % 5].model_copy(update={"answer": "x" * (i % 40)}) for i in range(200)]
    expected = [evaluator.score([exchange])[0] for exchange in many[:20]]
    _assert_close(evaluator.score(many)[:20], expected)


@contextmanager
def _record_passes(evaluator: SelfEvaluator) -> Iterator[list[int]]:
    """Yield a list that gets the number of tokens of each forward pass, padding included."""
    passes: list[int] = []

    def record(module: Any, args: Any, kwargs: Any) -> None:
        batch, tokens, _ = kwargs["inputs_embeds"].shape
        passes.append(batch * tokens)

    model = evaluator.aspire.lm.model.base_model
    hook = model.register_forward_pre_hook(record, with_kwargs=True)
    yield passes
    hook.remove()


def test_a_pass_holds_a_bounded_number_of_tokens_and_a_context_is_read_once() -> None:
    """With forty answers to each of two contexts, no pass is above the budget, and hardly any token is run twice."""
    evaluator = tiny_evaluator()
    contexts = ["a" * 300, "b" * 300] * 40
    exchanges = [Exchange(question="Who?", context=context, answer="Ada") for context in contexts]
    with _record_passes(evaluator) as passes:
        evaluator.score(exchanges)
    assert max(passes) <= 2048
    answers = 80 * len("Question: Who?\nAnswer: Ada")
    assert answers < sum(passes) < 2 * answers + 12 * 320


def test_little_of_a_pass_is_padding() -> None:
    """A short exchange is not padded to a long one, so about as many tokens are run as the exchanges hold."""
    evaluator = tiny_evaluator()
    contexts = ["x" * (1 + 60 * i) for i in range(6)]
    exchanges = [Exchange(question="Who?", context=context, answer="Ada") for context in contexts]
    with _record_passes(evaluator) as passes:
        evaluator.score(exchanges)
    # Each exchange holds its own tokens and the three embeddings of θs.
    held = 0
    for exchange in exchanges:
        lengths = evaluator.aspire.lengths(exchange.question, exchange.context, exchange.answer)
        held += sum(lengths) + 3
    assert held <= sum(passes) <= held + 6 * 64


def test_nothing_to_score_gives_no_scores() -> None:
    """An empty list is answered without running the model."""
    assert tiny_evaluator().score([]) == []


def test_equal_exchanges_get_equal_scores(exchanges: list[Exchange]) -> None:
    """The same exchange twice in a batch gets the same score twice."""
    first, second = tiny_evaluator().score([exchanges[0], exchanges[0]])
    assert first == second


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_comes_with_the_score_that_a_reading_gives_it(family: Family) -> None:
    """`answer` returns the best beam with the score of its text, whatever tokens it was generated as."""
    evaluator = tiny_evaluator(family, num_beams=3, max_new_tokens=6)
    question, context = "Who?", "Ada Lovelace."
    text, score = evaluator.answer(question, context)
    prompts = evaluator.aspire.prompt_states([(question, context)])
    ((best, *_),), _ = evaluator.aspire.decode(prompts, k=3, max_new_tokens=6)
    assert text == best.text
    (read,) = evaluator.score([Exchange(question=question, context=context, answer=text)])
    assert score.model_dump(include=NUMBERS) == pytest.approx(
        read.model_dump(include=NUMBERS), abs=1e-4
    )


def test_an_exchange_beyond_the_window_is_an_input_error() -> None:
    """The caller can fix it, and the error tells how."""
    exchange = Exchange(question="Who?", context="x" * 600, answer="Ada")
    with pytest.raises(InputError, match=r"expected at most 512 tokens .* shorten the context"):
        tiny_evaluator().score([exchange])


def test_threads_may_share_an_evaluator(exchanges: list[Exchange]) -> None:
    """Eight threads at once, with markers of special tokens in the text, all get the right scores."""
    evaluator = tiny_evaluator("opt")
    marked = [
        exchange.model_copy(update={"answer": exchange.answer + "<|end|>"})
        for exchange in exchanges
    ]
    expected = evaluator.score(marked)
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: evaluator.score(marked), range(16)):
            _assert_close(scores, expected)


def test_it_is_an_evaluator_of_the_protocol() -> None:
    """The threshold and the guarantee come from the calibration."""
    evaluator = tiny_evaluator(threshold=0.75)
    assert isinstance(evaluator, Evaluator)
    assert evaluator.threshold == 0.75
    assert evaluator.guarantee is None
    promise = Guarantee(
        target_risk=0.1, delta=0.05, n=100, method="exact binomial", date="2024-01-31"
    )
    threshold = Threshold(confidence=0.75, objective="risk", target=0.1, guarantee=promise)
    calibration = evaluator.calibration.model_copy(update={"thresholds": (threshold,)})
    assert (
        SelfEvaluator(evaluator.aspire, evaluator.manifest, calibration).guarantee
        == promise.sentence
    )


def test_a_fingerprint_tells_evaluators_apart(tmp_path: Path) -> None:
    """Other weights, another α or another calibration change the fingerprint, but other provenance does not."""

    def load(name: str, evaluator: SelfEvaluator) -> SelfEvaluator:
        save_evaluator(tmp_path / name, evaluator.aspire, evaluator.manifest, evaluator.calibration)
        return SelfEvaluator.from_pretrained(tmp_path / name, lm=evaluator.aspire.lm)

    same = tiny_evaluator()
    same.manifest = same.manifest.model_copy(update={"provenance": {"date": "another day"}})
    other = tiny_evaluator(seed=1)
    weights = SelfEvaluator(other.aspire, tiny_evaluator().manifest, other.calibration)
    weights.manifest = weights.manifest.model_copy(update={"base_model": other.manifest.base_model})
    first = load("first", tiny_evaluator()).fingerprint
    assert load("same", same).fingerprint == first
    others = [weights, tiny_evaluator(alpha=0.5), tiny_evaluator(threshold=0.6)]
    assert not weights.manifest.files
    twin = SelfEvaluator(tiny_evaluator().aspire, weights.manifest, weights.calibration)
    assert weights.fingerprint != twin.fingerprint
    fingerprints = {load(f"other{i}", other).fingerprint for i, other in enumerate(others)}
    assert len({first, *fingerprints}) == 4


def test_a_given_model_is_used(tmp_path: Path) -> None:
    """Loading with `lm` takes that very model, so that evaluators can share it."""
    evaluator = tiny_evaluator()
    save_evaluator(
        tmp_path / "evaluator", evaluator.aspire, evaluator.manifest, evaluator.calibration
    )
    lm = tiny_lm()
    assert SelfEvaluator.from_pretrained(tmp_path / "evaluator", lm=lm).aspire.lm is lm


@pytest.mark.parametrize("self_eval", ["soft_prompt", "lora"])
def test_an_answer_scored_incrementally_scores_as_a_finished_one(
    family: Family, self_eval: Any
) -> None:
    """At every boundary the score equals the score of the answer so far, even if a token grows across the boundary."""
    evaluator = tiny_evaluator(family, self_eval=self_eval)
    parts = ["", "Harrow built it.", " In 1998.", "", " It is cor", "rect", "", "ly said."]
    extend = evaluator.score_incrementally("Which yard?", "A passage.")
    found = [extend(part) for part in parts]
    texts = ["".join(parts[: i + 1]) for i in range(len(parts))]
    whole = [Exchange(question="Which yard?", context="A passage.", answer=text) for text in texts]
    for one, expected in zip(found, evaluator.score(whole), strict=True):
        assert one.model_dump(include=NUMBERS) == pytest.approx(
            expected.model_dump(include=NUMBERS), abs=1e-4
        )


def test_incremental_scoring_reads_each_token_once() -> None:
    """Only new or changed tokens are run, and the three embeddings of θs."""
    evaluator = tiny_evaluator()
    extend = evaluator.score_incrementally("Which yard?", "A passage.")
    with _record_passes(evaluator) as passes:
        for part in ("Yes.", " It is cor", "rect", "", "."):
            extend(part)
    # " Yes." is five bytes, " It is" six and " cor" a token, in whose place comes the token " correct".
    # After an empty part nothing is asked again.
    assert passes == [5, 3, 7, 3, 1, 3, 1, 3]


def test_groups_and_bands_have_thresholds_of_their_own() -> None:
    """A policy asks for thresholds by name, and a group without its own has that of all."""
    evaluator = tiny_evaluator(threshold=0.75)
    own = Threshold(group="acme", confidence=0.9, objective="risk", target=0.1)
    review = Threshold(name="review", confidence=0.4, objective="risk", target=0.3)
    thresholds = (*evaluator.calibration.thresholds, own, review)
    calibration = evaluator.calibration.model_copy(update={"thresholds": thresholds})
    evaluator = SelfEvaluator(evaluator.aspire, evaluator.manifest, calibration)
    assert evaluator.threshold_for("acme") == NamedThreshold(0.9, None)
    assert evaluator.threshold_for("other", "review") == NamedThreshold(0.4, None)
    assert evaluator.threshold_for(None, "unheard of") is None
    policy = RoutingPolicy(bands=(Band("review", Accept()), Band(0, Abstain())))
    assert policy.resolve_bands(evaluator).lowest_accepting is not None
    assert RoutingPolicy(group_by="tenant").resolve_bands(evaluator, "acme").threshold == 0.9


def _score_in_child(evaluator: SelfEvaluator, exchange: Exchange, results: Any) -> None:
    confidence = evaluator.score([exchange])[0].confidence
    _keep_all_threads_busy()
    results.put((torch.get_num_threads(), confidence))


def _keep_all_threads_busy() -> None:
    torch.randn(600, 600) @ torch.randn(600, 600)
    torch.randn(10**6).exp()


def test_a_child_that_is_forked_after_scoring_scores_with_one_thread() -> None:
    """It has none of the threads of its parent, and would wait for them forever."""
    evaluator = tiny_evaluator(seed=1)
    exchange = Exchange(question="Who?", context="Ada keeps it.", answer="Ada")
    expected = evaluator.score([exchange])[0].confidence
    torch.set_num_threads(2)
    _keep_all_threads_busy()
    processes = get_context("fork")
    results = processes.SimpleQueue()
    child = processes.Process(target=_score_in_child, args=(evaluator, exchange, results))
    child.start()
    child.join(timeout=30)
    child.kill()
    torch.set_num_threads(1)
    assert child.exitcode == 0
    threads, confidence = results.get()
    assert (threads, confidence) == (1, pytest.approx(expected, abs=1e-4))
