"""The routes of one answer, driven by hand: what is asked for, in which order, and what the verdict tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from aspire_guard.errors import EvaluationError, ReviewQueueError, RouteTimeoutError
from aspire_guard.exchange import Exchange
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.routing.effects import (
    CallCustom,
    ChainRan,
    CustomRan,
    EffectFailed,
    RequestReview,
    Reviewed,
    RunChain,
    RunFallback,
    ScoreExchange,
)
from aspire_guard.routing.flow import Flow, Outcome, answer_flow
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Budget,
    Custom,
    Fallback,
    HumanReview,
    Route,
    Timeouts,
)
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score, Step, Verdict

EVALUATOR = ConstantEvaluator(1.0, threshold=0.5, guarantee="promised")
LARGE = Fallback(RunnableLambda(lambda question: "unused"), name="large")
LARGER = Fallback(RunnableLambda(lambda question: "unused"), name="larger")


class Desk:
    """A queue without reviewers."""

    def submit(self, item: ReviewItem) -> Any:
        raise AssertionError("the flow itself does no work")

    def wait(self, ticket_id: str, timeout: float) -> Any:
        raise AssertionError("the flow itself does no work")

    async def await_(self, ticket_id: str, timeout: float) -> Any:
        raise AssertionError("the flow itself does no work")


DESK = Desk()


class Clock:
    """A clock whose time passes only by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def make_result(confidence: float) -> ScoringResult:
    return ScoringResult(Score(selection_score=0.0, confidence=confidence))


# The chain's own answer, which is below the threshold.
REJECTED = (ChainRan("Ada"), make_result(0.2))


def route_below(*routes: Route, **settings: Any) -> RoutingPolicy:
    """Make a policy that takes these routes below the threshold."""
    return RoutingPolicy(otherwise=routes, **settings)


def start(policy: RoutingPolicy, **settings: Any) -> Flow:
    return answer_flow("Who?", EVALUATOR, policy, **settings)


def drive(flow: Flow, results: Iterable[Any]) -> tuple[list[Any], Outcome]:
    """Return the effects that the flow asked for, and its outcome."""
    asked = [next(flow)]
    for result in results:
        try:
            asked.append(flow.throw(result) if isinstance(result, Exception) else flow.send(result))
        except StopIteration as stop:
            return asked, stop.value
    raise AssertionError(f"expected the flow to end, found it asking for {asked[-1]}")


def get_verdict(outcome: Outcome) -> Verdict:
    assert outcome.verdict is not None
    return outcome.verdict


def summarize(verdict: Verdict) -> tuple[str, bool, bool, float | None]:
    return verdict.route, verdict.accepted, verdict.released, verdict.confidence


def test_a_fallbacks_answer_is_scored_and_released() -> None:
    """The verdict names the route, and its steps tell of both answers."""
    results = [*REJECTED, ChainRan("Bob", seconds=2.0, retries=1), make_result(0.75)]
    asked, outcome = drive(start(route_below(LARGE)), results)
    assert asked == [
        RunChain(),
        ScoreExchange(Exchange(question="Who?", answer="Ada")),
        RunFallback(LARGE),
        ScoreExchange(Exchange(question="Who?", answer="Bob")),
    ]
    assert outcome.output == "Bob"
    assert summarize(get_verdict(outcome)) == ("fallback", False, True, 0.75)
    assert get_verdict(outcome).reason == "confidence 0.750 reaches the threshold 0.500"
    assert get_verdict(outcome).steps == (
        Step(route="chain", confidence=0.2),
        Step(route="fallback", name="large", confidence=0.75, seconds=2.0, retries=1),
    )


def test_the_guarantee_is_about_the_chains_own_answers() -> None:
    """It goes with an accepted answer and with an abstention, not with a fallback's answer."""
    _, accepted = drive(start(route_below(LARGE)), [ChainRan("Ada"), make_result(0.9)])
    _, abstained = drive(start(RoutingPolicy()), [ChainRan("Ada"), make_result(0.1)])
    _, fallen_back = drive(
        start(route_below(LARGE)), [*REJECTED, ChainRan("Bob"), make_result(0.9)]
    )
    found = [get_verdict(outcome).guarantee for outcome in (accepted, abstained, fallen_back)]
    assert found == ["promised", "promised", None]


def test_fallbacks_in_a_row_are_tried_one_after_another() -> None:
    """If no answer is good enough, the guard abstains, and the verdict is about the best-scored answer."""
    results = [*REJECTED, ChainRan("Bob"), make_result(0.4), ChainRan("Cy"), make_result(0.3)]
    asked, outcome = drive(start(route_below(LARGE, LARGER, Abstain("Pass."))), results)
    assert [request.route for request in asked if isinstance(request, RunFallback)] == [
        LARGE,
        LARGER,
    ]
    assert outcome.output == "Pass."
    assert summarize(get_verdict(outcome)) == ("abstain", False, False, 0.4)
    assert [step.confidence for step in get_verdict(outcome).steps] == [0.2, 0.4, 0.3]


def test_after_the_last_route_comes_abstention() -> None:
    """The abstention has the policy's message, in the type of the chain's own output."""
    results = [
        ChainRan(AIMessage("Ada", id="m1")),
        make_result(0.2),
        ChainRan("Bob"),
        make_result(0.1),
    ]
    _, outcome = drive(start(route_below(LARGE, abstention="Pass.")), results)
    assert (outcome.output.content, outcome.output.id) == ("Pass.", "m1")


def test_a_fallback_that_fails_is_recorded_without_its_words() -> None:
    """An error of a fallback may quote an unjudged answer, but our own errors don't."""
    results = [*REJECTED, EffectFailed(ValueError("can't parse: Ada"), 3.0, retries=2)]
    late = EffectFailed(RouteTimeoutError("expected the fallback to be done within 3 s"))
    _, outcome = drive(start(route_below(LARGE, LARGER)), [*results, late])
    assert get_verdict(outcome).steps[1:] == (
        Step(
            route="fallback",
            name="large",
            error="the fallback raised ValueError",
            seconds=3.0,
            retries=2,
        ),
        Step(route="fallback", name="larger", error="expected the fallback to be done within 3 s"),
    )
    assert get_verdict(outcome).error == "expected the fallback to be done within 3 s"
    assert not get_verdict(outcome).released


def test_a_fallback_without_a_readable_answer_is_skipped() -> None:
    """The next route is taken."""
    results = [*REJECTED, ChainRan(42), ChainRan("Cy"), make_result(0.9)]
    _, outcome = drive(start(route_below(LARGE, LARGER)), results)
    assert outcome.output == "Cy"
    error = get_verdict(outcome).steps[1].error
    assert error is not None
    assert error.startswith("no answer found in the chain's output")


def test_a_fallback_that_calls_tools_passes() -> None:
    """Its message leaves the guard unjudged, as the chain's own would."""
    message = AIMessage("", tool_calls=[{"name": "look_up", "args": {}, "id": "1"}])
    _, outcome = drive(start(route_below(LARGE)), [*REJECTED, ChainRan(message)])
    assert outcome == Outcome(message, None)


def test_the_budget_of_hops_is_kept() -> None:
    """Fallbacks beyond the budget are skipped, and the steps say so."""
    policy = route_below(LARGE, LARGER, budget=Budget(hops=1))
    _, outcome = drive(start(policy), [*REJECTED, ChainRan("Bob"), make_result(0.2)])
    assert get_verdict(outcome).steps[2] == Step(
        route="fallback", name="larger", error="the budget of 1 hops is used up"
    )


def test_the_budget_of_cost_is_kept() -> None:
    """An expensive fallback is skipped, and a cheap one behind it is called."""
    dear = Fallback(LARGE.runnable, cost=3.0, name="dear")
    cheap = Fallback(LARGE.runnable, cost=1.0, name="cheap")
    policy = route_below(cheap, dear, cheap, budget=Budget(cost=3.0))
    results = [*REJECTED, ChainRan("Bob"), make_result(0.2), ChainRan("Cy"), make_result(0.2)]
    asked, outcome = drive(start(policy), results)
    assert [request.route.name for request in asked if isinstance(request, RunFallback)] == [
        "cheap",
        "cheap",
    ]
    assert get_verdict(outcome).steps[2].error == "its cost of 3 is more than the budget has left"


def test_the_budget_of_time_is_kept() -> None:
    """No fallback begins after the budget's seconds."""
    clock = Clock()
    flow = start(route_below(LARGE, budget=Budget(seconds=5)), clock=clock)
    next(flow)
    flow.send(ChainRan("Ada"))
    clock.now += 5
    with pytest.raises(StopIteration) as stop:
        flow.send(make_result(0.2))
    assert get_verdict(stop.value.value).steps[1].error == "the budget of 5 s is used up"


def test_time_limits_go_with_the_requests() -> None:
    """Each effect has its own limit, and never more than is left of the overall time."""
    clock = Clock()
    timeouts = Timeouts(chain=4, evaluator=3, fallback=2, overall=10)
    slow = Fallback(LARGE.runnable, timeout=9)
    flow = start(route_below(slow, LARGE, timeouts=timeouts), clock=clock)
    assert next(flow) == RunChain(timeout=4)
    clock.now += 4
    assert flow.send(ChainRan("Ada")) == ScoreExchange(
        Exchange(question="Who?", answer="Ada"), timeout=3
    )
    clock.now += 1
    assert flow.send(make_result(0.2)) == RunFallback(slow, timeout=5, within=5)
    clock.now += 4
    assert flow.send(EffectFailed(RouteTimeoutError("late"))) == RunFallback(
        LARGE, timeout=1, within=1
    )
    clock.now += 1
    with pytest.raises(StopIteration) as stop:
        flow.send(ChainRan("Bob"))
    # No time is left to score it, so it is not released.
    assert get_verdict(stop.value.value).steps[2].error == "the overall time is used up"
    assert not get_verdict(stop.value.value).released


def test_without_time_nothing_more_is_tried() -> None:
    """Fallback, review and custom route are skipped, but abstention always works."""
    clock = Clock()
    routes = (LARGE, HumanReview(DESK), Custom(lambda *given: "Bob"))
    flow = start(route_below(*routes, timeouts=Timeouts(overall=10)), clock=clock)
    next(flow)
    flow.send(ChainRan("Ada"))
    clock.now += 11
    with pytest.raises(StopIteration) as stop:
        flow.send(make_result(0.2))
    steps = get_verdict(stop.value.value).steps[1:]
    assert [(step.route, step.error) for step in steps] == [
        (route, "the overall time is used up") for route in ("fallback", "human_review", "custom")
    ]


def test_a_failed_evaluation_takes_the_lowest_routes() -> None:
    """The answer itself is not released, but a fallback's may be."""
    failed = ScoringResult(error=EvaluationError("no memory"))
    _, outcome = drive(
        start(route_below(LARGE)), [ChainRan("Ada"), failed, ChainRan("Bob"), make_result(0.9)]
    )
    assert outcome.output == "Bob"
    assert (get_verdict(outcome).steps[0].error, get_verdict(outcome).error) == (
        "no memory",
        "no memory",
    )


def test_an_unscored_answer_is_never_accepted() -> None:
    """Neither a band that accepts everything nor acceptance as the last resort releases it."""
    failed = ScoringResult(error=EvaluationError("no memory"))
    everything = RoutingPolicy(bands=(Band(0, Accept()),))
    for policy in (everything, route_below(HumanReview(DESK, otherwise=Accept()))):
        results: list[Any] = [ChainRan("Ada"), failed]
        if policy.otherwise:
            results.append(Reviewed("t1"))
        _, outcome = drive(start(policy), results)
        assert outcome.output == policy.abstention
        assert not get_verdict(outcome).released


def test_a_failed_evaluation_may_end_in_abstention_at_once() -> None:
    """With on_error="abstain" no other route is tried."""
    failed = ScoringResult(error=EvaluationError("no memory"))
    _, outcome = drive(start(route_below(LARGE, on_error="abstain")), [ChainRan("Ada"), failed])
    assert summarize(get_verdict(outcome)) == ("abstain", False, False, None)


def test_a_failed_chain_raises_by_default() -> None:
    """A failure is not an answer of low confidence."""
    with pytest.raises(ConnectionError, match="down"):
        drive(start(route_below(LARGE)), [ConnectionError("down")])


def test_a_failed_chain_may_be_routed() -> None:
    """It takes the routes of the lowest confidence."""
    policy = route_below(LARGE, on_chain_error="fallback")
    _, outcome = drive(start(policy), [ConnectionError("down"), ChainRan("Bob"), make_result(0.9)])
    assert outcome.output == "Bob"
    assert get_verdict(outcome).steps[0] == Step(
        route="chain", error="the chain raised ConnectionError"
    )
    assert get_verdict(outcome).error == "the chain raised ConnectionError"


def test_a_failed_chain_raises_if_nothing_else_has_an_output() -> None:
    """There is no type that the abstention could take, and no answer to review."""
    policy = route_below(LARGE, HumanReview(DESK), Abstain("Pass."), on_chain_error="fallback")
    with pytest.raises(ConnectionError, match="down"):
        drive(start(policy), [ConnectionError("down"), EffectFailed(ValueError("too"))])


def test_a_custom_route_can_replace_a_failed_chain() -> None:
    """The route gets no output, and makes one."""
    route = Custom(lambda *given: "unused")
    asked, outcome = drive(
        start(route_below(route, on_chain_error="fallback")),
        [ConnectionError("down"), CustomRan("Call us.")],
    )
    assert isinstance(asked[1], CallCustom)
    assert (asked[1].output, asked[1].verdict.reason) == (None, "the chain failed")
    assert outcome.output == "Call us."
    assert summarize(get_verdict(outcome)) == ("custom", False, False, None)


def test_a_custom_route_gets_the_best_answer() -> None:
    """The route also gets the verdict so far, and releases the answer if it hands it on unchanged."""
    route = Custom(lambda *given: "unused")
    results = [ChainRan("Ada"), make_result(0.4), ChainRan("Bob"), make_result(0.3)]
    asked, outcome = drive(start(route_below(LARGE, route)), [*results, CustomRan("Ada")])
    assert isinstance(asked[-1], CallCustom)
    assert (asked[-1].output, asked[-1].verdict.confidence) == ("Ada", 0.4)
    assert summarize(get_verdict(outcome)) == ("custom", False, True, 0.4)
    _, other = drive(start(route_below(LARGE, route)), [*results, CustomRan("Perhaps Ada")])
    assert not get_verdict(other).released


def test_a_failed_custom_route_is_skipped() -> None:
    """The steps name its error, and the guard abstains."""
    _, outcome = drive(
        start(route_below(Custom(print))), [*REJECTED, EffectFailed(KeyError("Ada"))]
    )
    assert get_verdict(outcome).steps[1] == Step(
        route="custom", error="the custom route raised KeyError"
    )
    assert not get_verdict(outcome).released


def test_an_abstention_may_be_a_function_of_the_verdict() -> None:
    """If the function fails, the policy's message replaces it."""
    sure = Abstain(lambda verdict: f"Only {verdict.confidence:.0%} sure.")
    _, outcome = drive(start(route_below(sure)), REJECTED)
    assert outcome.output == "Only 20% sure."

    def broken(verdict: Verdict) -> str:
        raise type(
            "Ada", (KeyError,), {}
        )  # no module holds this type, so its name may be an answer

    _, outcome = drive(start(route_below(Abstain(broken), abstention="Pass.")), REJECTED)
    assert outcome.output == "Pass."
    assert get_verdict(outcome).error == "the abstention's function raised KeyError"


def test_acceptance_may_be_the_last_resort() -> None:
    """The best-scored answer is released without a promise if the policy says so."""
    results = [ChainRan("Ada"), make_result(0.4), ChainRan("Bob"), make_result(0.3)]
    _, outcome = drive(start(route_below(LARGE, Accept())), results)
    assert outcome.output == "Ada"
    assert summarize(get_verdict(outcome)) == ("accept", True, True, 0.4)
    assert get_verdict(outcome).guarantee is None


def test_a_review_leaves_a_ticket() -> None:
    """Without waiting the guard abstains, and its message may name the ticket."""
    words = Abstain(lambda verdict: f"We will come back to you: {verdict.ticket}.")
    policy = route_below(HumanReview(DESK, otherwise=words), group_by="tenant")
    flow = start(policy, metadata={"tenant": "acme"})
    asked, outcome = drive(flow, [*REJECTED, Reviewed("t1", seconds=0.5)])
    assert isinstance(asked[-1], RequestReview)
    item = asked[-1].item
    assert (item.question, item.answer, item.confidence, item.group) == ("Who?", "Ada", 0.2, "acme")
    assert item.reason == "confidence 0.200 is below the threshold 0.500"
    assert outcome.output == "We will come back to you: t1."
    assert (get_verdict(outcome).route, get_verdict(outcome).ticket) == ("abstain", "t1")
    assert get_verdict(outcome).steps[1] == Step(route="human_review", seconds=0.5)


@pytest.mark.parametrize(
    ("decision", "output", "accepted", "reason"),
    [
        (Decision(action="approve"), "Ada", True, "a reviewer approved the answer"),
        (Decision(action="edit", text="Ada B."), "Ada B.", False, "a reviewer edited the answer"),
        (
            Decision(action="respond", text="Ask Bob."),
            "Ask Bob.",
            False,
            "a reviewer responded in place of the answer",
        ),
    ],
)
def test_a_reviewer_releases_an_answer(
    decision: Decision, output: str, accepted: bool, reason: str
) -> None:
    """The answer leaves unchanged, edited or replaced, in the type of the chain's output."""
    chains: list[Any] = [
        "Ada",
        AIMessage("Ada", id="m1"),
        {"answer": "Ada", "sources": ["keys.md"]},
    ]
    expected: list[Any] = [output, output, {"answer": output, "sources": ["keys.md"]}]
    for chain_output, wanted in zip(chains, expected, strict=True):
        flow = start(route_below(HumanReview(DESK, wait=60)))
        results = [ChainRan(chain_output), make_result(0.2), Reviewed("t1", decision)]
        asked, outcome = drive(flow, results)
        assert asked[-1].wait == 60
        found = outcome.output
        if isinstance(found, AIMessage):
            found = found.content
        assert found == wanted
        assert summarize(get_verdict(outcome)) == ("human_review", accepted, True, 0.2)
        assert get_verdict(outcome).reason == reason


def test_the_best_answer_is_reviewed() -> None:
    """Approving a fallback's answer releases it, though it is not the chain's own."""
    results = [
        *REJECTED,
        ChainRan("Bob"),
        make_result(0.4),
        Reviewed("t1", Decision(action="approve")),
    ]
    asked, outcome = drive(start(route_below(LARGE, HumanReview(DESK, wait=60))), results)
    assert asked[-1].item.answer == "Bob"
    assert outcome.output == "Bob"
    assert summarize(get_verdict(outcome)) == ("human_review", False, True, 0.4)


def test_the_whole_run_travels_with_the_ticket() -> None:
    """The reviewer sees all answers with their scores, the steps, the threshold and the named metadata."""
    route = HumanReview(DESK, metadata=("user", "unknown"))
    results = [*REJECTED, ChainRan("Bob"), make_result(0.4), Reviewed("t1")]
    flow = start(route_below(LARGE, route), metadata={"user": "dan", "secret": "zanq"})
    asked, _ = drive(flow, results)
    item = asked[-1].item
    assert [(one.route, one.name, one.answer) for one in item.candidates] == [
        ("chain", None, "Ada"),
        ("fallback", "large", "Bob"),
    ]
    confidences = [one.score.confidence for one in item.candidates if one.score is not None]
    assert (confidences, item.threshold) == ([0.2, 0.4], 0.5)
    assert item.score == item.candidates[1].score
    assert [step.route for step in item.steps] == ["chain", "fallback"]
    assert item.metadata == {"user": "dan"}


def test_a_function_may_make_the_metadata() -> None:
    """It sees the input and the call's metadata. If it fails, the answer is reviewed all the same."""

    def describe(input: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {"asked": input, "at": metadata["at"]}

    route = HumanReview(DESK, metadata=describe)
    for given, expected in (
        ({"at": date(2030, 1, 2)}, {"asked": "Who?", "at": "2030-01-02"}),
        ({}, {"metadata_error": "KeyError"}),
    ):
        flow = start(route_below(route), metadata=given)
        asked, _ = drive(flow, [*REJECTED, Reviewed("t1")])
        assert asked[-1].item.metadata == expected


def test_a_rejected_answer_takes_the_next_route() -> None:
    """The rejected answer is not released."""
    results = [*REJECTED, Reviewed("t1", Decision(action="reject"))]
    _, outcome = drive(start(route_below(HumanReview(DESK, wait=60), Abstain("Pass."))), results)
    assert outcome.output == "Pass."
    assert summarize(get_verdict(outcome)) == ("abstain", False, False, 0.2)
    assert get_verdict(outcome).reason == "a reviewer rejected the answer"


def test_a_review_store_that_is_down_takes_the_next_route() -> None:
    """The steps name the error, and nothing is released."""
    down = EffectFailed(ReviewQueueError("expected the database to answer"), ticket="t1")
    _, outcome = drive(start(route_below(HumanReview(DESK, wait=60))), [*REJECTED, down])
    assert outcome.output == RoutingPolicy().abstention
    assert get_verdict(outcome).steps[1] == Step(
        route="human_review", error="expected the database to answer"
    )
    assert get_verdict(outcome).ticket == "t1"


def test_the_extractor_reads_every_answer() -> None:
    """The chain's and the fallback's answers are read by the same function."""

    def shout(input: Any, output: Any, documents: Any) -> Exchange:
        return Exchange(question=str(input).upper(), answer=str(output).upper())

    flow = start(route_below(LARGE), extract=shout)
    asked, _ = drive(flow, [*REJECTED, ChainRan("Bob"), make_result(0.9)])
    exchanges = [request.exchange for request in asked if isinstance(request, ScoreExchange)]
    assert exchanges == [
        Exchange(question="WHO?", answer="ADA"),
        Exchange(question="WHO?", answer="BOB"),
    ]
