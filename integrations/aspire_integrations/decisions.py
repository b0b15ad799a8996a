"""Decision models of LangChain, both ways: our evaluator as one of them, and any of them as an evaluator.

A decision model answers typed questions about a state, a yes-no question with the probability of yes. The one that is
asked here: is the answer right?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import langchain_core
from langchain_core.runnables import Runnable
from pydantic import ConfigDict

from aspire_guard.errors import ExchangeError, InputError
from aspire_guard.evaluators.callable import CallableEvaluator
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.exchange.extraction import describe_shape, parse_messages
from aspire_guard.verdict import Score

try:
    from langchain_core.decisions import (
        Answer,
        BaseDecisionModel,
        ClassifierRequest,
        ClassifierResponse,
        Noul,
        NoulAnswer,
        NoulCriteria,
        Question,
        State,
    )
except ImportError as error:
    raise ImportError(
        f"expected langchain-core 1.8 or newer, which has decision models; found {langchain_core.__version__}; "
        "run pip install --upgrade langchain-core"
    ) from error

IS_RIGHT = Noul(
    instructions="Is the answer to the question right?",
    criteria=NoulCriteria(
        true="The answer is what the question asks for, and the context supports it where there is one.",
        false="The answer is wrong, evasive, or not supported by the context.",
    ),
)


class AspireDecisionModel(BaseDecisionModel):
    """An evaluator as a decision model: the probability that an answer is right.

    The state is an exchange, a dict with a question, an answer and perhaps a context, under the keys that a guard
    reads; or a conversation that ends with the model's answer. Every yes-no question is taken for `IS_RIGHT`, whatever
    its words, for an evaluator can judge nothing else.

    Attributes:
        evaluator: what judges; `ainvoke` runs it in a thread, off the event loop.
        model: the name that stands on responses and traces.
    """

    evaluator: Evaluator
    model: str = "aspire"

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(self, evaluator: Evaluator, *, model: str = "aspire") -> None:
        fields: dict[str, Any] = {"evaluator": evaluator, "model": model}
        super().__init__(**fields)

    @property
    def _provider(self) -> str:
        return "aspire_guard"

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        """The confidence of the exchange in `state`, as the answer to each question.

        Raises:
            ExchangeError: the state holds no question or no answer.
            InputError: a question is no yes-no question.
        """
        for name, question in questions.items():
            if not isinstance(question, Noul):
                raise InputError(
                    f"expected yes-no questions (Noul), found {name!r} of type {type(question).__name__}; "
                    "ask IS_RIGHT, the one question that an evaluator answers"
                )
        (score,) = self.evaluator.score([_exchange(state)])
        answers: dict[str, Answer] = {
            name: NoulAnswer(type="noul", noul=score.confidence) for name in questions
        }
        return ClassifierResponse(model=self.model, answers=answers)


def _exchange(state: State) -> Exchange:
    try:
        whole = state if isinstance(state, Mapping) else {"messages": parse_messages(state)}
        return Exchange.from_run(whole, whole)
    except ExchangeError:
        raise ExchangeError(
            "expected a state with a question and an answer, found none in "
            f"{describe_shape(state)}; give a dict with 'question', 'answer' and perhaps 'context', or a list of "
            "messages that ends with the model's answer"
        ) from None


@dataclass(frozen=True)
class DecisionEvaluator:
    """A decision model as an evaluator: its probability that the answer is right is the confidence.

    Attributes:
        model: the decision model, perhaps with retries or fallbacks around it; gets a dict of question, answer and,
            where there is one, context. Several exchanges are asked about at once, in threads.
        threshold: the least confidence that should be released, in [0, 1].
        guarantee: what that threshold promises, in one sentence; None where it promises nothing.
        asked: the question, in the words that suit the model.
    """

    model: Runnable[ClassifierRequest, ClassifierResponse]
    threshold: float = 0.5
    guarantee: str | None = None
    asked: Noul = field(default_factory=IS_RIGHT.model_copy)

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """One score an exchange; its selection score is the logarithm of the probability, in nats."""
        return CallableEvaluator(self._probabilities, batched=True).score(exchanges)

    def _probabilities(self, exchanges: list[Exchange]) -> list[float]:
        requests: list[ClassifierRequest] = [
            {
                "state": exchange.model_dump(exclude={"log_likelihood"}, exclude_none=True),
                "questions": {"right": self.asked},
            }
            for exchange in exchanges
        ]
        return [response.nouls["right"].noul for response in self.model.batch(requests)]
