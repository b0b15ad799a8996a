"""Decision models of LangChain in both directions: an evaluator as a decision model, and the reverse.

A decision model answers typed questions about a state, and a yes-no question with the probability of yes. The question
here is whether the answer is right.
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
from aspire_guard.exchange.conversation import parse_messages
from aspire_guard.exchange.extraction import describe_shape
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
    """An evaluator as a decision model, which gives the probability that an answer is right.

    The state is an exchange or a conversation. An exchange is a dict with a question, an answer and perhaps a context,
    under the keys that a guard reads. A conversation ends with the model's answer. Every yes-no question is treated as
    `IS_RIGHT`, whatever its words, because an evaluator can judge nothing else.

    Attributes:
        evaluator: gives the probability. `ainvoke` runs it in a thread, off the event loop.
        model: the name on responses and traces.
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
        """Answer each question with the confidence of the exchange in `state`.

        Raises:
            ExchangeError: the state holds no question or no answer.
            InputError: a question is not a yes-no question.
        """
        for name, question in questions.items():
            if not isinstance(question, Noul):
                raise InputError(
                    f"expected yes-no questions (Noul), found {name!r} of type {type(question).__name__}; "
                    "ask IS_RIGHT, the one question that an evaluator answers"
                )
        (score,) = self.evaluator.score([_read_exchange(state)])
        answers: dict[str, Answer] = {
            name: NoulAnswer(type="noul", noul=score.confidence) for name in questions
        }
        return ClassifierResponse(model=self.model, answers=answers)


def _read_exchange(state: State) -> Exchange:
    try:
        fields = state if isinstance(state, Mapping) else {"messages": parse_messages(state)}
        return Exchange.from_run(fields, fields)
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
        model: the decision model, perhaps with retries or fallbacks around it. Its state is a dict of question, answer
            and, if there is one, context. Several exchanges are judged at once, in threads.
        threshold: the lowest confidence that is released, in [0, 1].
        guarantee: the promise of that threshold in one sentence, or None if it makes no promise.
        asked: the question, in words that suit the model.
    """

    model: Runnable[ClassifierRequest, ClassifierResponse]
    threshold: float = 0.5
    guarantee: str | None = None
    asked: Noul = field(default_factory=IS_RIGHT.model_copy)

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score exchanges. The selection score is the logarithm of the probability, in nats."""
        return CallableEvaluator(self._ask, batched=True).score(exchanges)

    def _ask(self, exchanges: list[Exchange]) -> list[float]:
        """Return the probability that each answer is right, in [0, 1]."""
        requests: list[ClassifierRequest] = []
        for exchange in exchanges:
            state = exchange.model_dump(
                include={"question", "context", "answer"}, exclude_none=True
            )
            requests.append({"state": state, "questions": {"right": self.asked}})
        return [response.nouls["right"].noul for response in self.model.batch(requests)]
