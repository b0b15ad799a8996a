"""The way of one answer, written once: a generator that asks for work and receives its results.

It does no work itself, so the guard's sync and async loops drive the same flow. Later routes
(another model, a person) are further requests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage

from aspire_guard.chain_callbacks import ChainWatch
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange, answer_in
from aspire_guard.routing.abstain import abstain, attach
from aspire_guard.routing.evaluation import Evaluated
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.verdict import Timings, Verdict


@dataclass(frozen=True)
class Generate:
    """Asks for a run of the chain; answered with a `Generated`, or with the chain's error thrown in."""


@dataclass(frozen=True)
class Generated:
    """What a run of the chain gave.

    Attributes:
        output: the chain's output.
        watch: what was seen inside the chain.
        seconds: time spent, in seconds; of a batch an even share.
    """

    output: Any
    watch: ChainWatch = field(default_factory=ChainWatch)
    seconds: float | None = None


@dataclass(frozen=True)
class Evaluate:
    """Asks for the score of an exchange; answered with an `Evaluated`."""

    exchange: Exchange


@dataclass(frozen=True)
class Outcome:
    """What leaves the guard: an output of the chain's type, and the verdict; None for a message that calls tools."""

    output: Any
    verdict: Verdict | None


@dataclass(frozen=True)
class Round:
    """Asks for the same kind of work for several flows at once; answered with a list of results.

    Attributes:
        flows: which flows ask, by their places.
        requests: what they ask, in the same order; either all `Generate` or all `Evaluate`.
    """

    flows: list[int]
    requests: list[Any]


Flow = Generator[Generate | Evaluate, Any, Outcome]


def answer_flow(input: Any, evaluator: Evaluator, policy: RoutingPolicy) -> Flow:
    """Generate, score, decide.

    Raises:
        ExchangeError: no question or answer can be read from the chain's input and output.
        EvaluationError: scoring failed, and the policy says to raise then.
    """
    generated: Generated = yield Generate()
    answer = answer_in(generated.output)
    if isinstance(answer, AIMessage) and answer.tool_calls:
        return Outcome(generated.output, verdict=None)
    exchange = Exchange.from_run(input, generated.output, generated.watch.documents)
    evaluated = Evaluated(generated.watch.self_score(generated.output, getattr(evaluator, "fingerprint", None)))
    if evaluated.score is None:
        evaluated = yield Evaluate(exchange)
    verdict = _verdict(evaluated, evaluator, policy, Timings(generate=generated.seconds, score=evaluated.seconds))
    output = generated.output if verdict.accepted else abstain(generated.output, policy.abstention)
    return Outcome(attach(output, verdict), verdict)


def together(flows: Sequence[Flow]) -> Generator[Round, list[Any], list[Outcome | Exception]]:
    """Many flows as one, which asks for like work in one round; gives each flow's outcome or error, in order.

    A result that is an exception is thrown into its flow.
    """
    outcomes: dict[int, Outcome | Exception] = {}
    waiting: dict[int, Generate | Evaluate] = {}

    def advance(place: int, step: Callable[[], Generate | Evaluate]) -> None:
        try:
            waiting[place] = step()
        except StopIteration as stop:
            outcomes[place] = stop.value
        except Exception as error:
            outcomes[place] = error

    for place, flow in enumerate(flows):
        advance(place, partial(next, flow))
    while waiting:
        # All answers are generated before the first is scored, so that scoring is one call.
        kind = Generate if any(isinstance(request, Generate) for request in waiting.values()) else Evaluate
        places = [place for place, request in waiting.items() if isinstance(request, kind)]
        results = yield Round(places, [waiting.pop(place) for place in places])
        for place, result in zip(places, results, strict=True):
            resume = flows[place].throw if isinstance(result, Exception) else flows[place].send
            advance(place, partial(resume, result))
    return [outcomes[place] for place in range(len(flows))]


def _verdict(evaluated: Evaluated, evaluator: Evaluator, policy: RoutingPolicy, timings: Timings) -> Verdict:
    if evaluated.score is not None:
        return policy.decide(evaluated.score, evaluator, timings)
    if policy.on_error == "raise" and evaluated.error is not None:
        raise evaluated.error
    return policy.decide_unscored(str(evaluated.error), evaluator, timings)
