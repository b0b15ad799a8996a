"""LangSmith feedback: the confidence of each observed answer, beside its trace and off the request path.

handler = AspireCallbackHandler(evaluator, on_score=langsmith_feedback())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from aspire_guard.observe import Observation

# The client's own ten, with growing pauses, hold up all other answers for minutes while LangSmith is down.
_ATTEMPTS = 2


def langsmith_feedback(
    client: Any = None, *, session_id: UUID | str | None = None, key: str = "aspire_confidence"
) -> Callable[[Observation], None]:
    """An `on_score` for `AspireCallbackHandler` that sends each score to LangSmith as feedback on the run.

    It runs in the handler's thread; where LangSmith can't be reached, the handler counts and logs the failure.

    Args:
        client: a `langsmith.Client`; None for one that is configured by the environment.
        session_id: the id of the project that the runs are traced to; newer deployments ask for it.
        key: the name of the feedback.
    """
    from langsmith import Client

    langsmith = Client() if client is None else client

    def send(observation: Observation) -> None:
        if observation.score is not None:
            extra = observation.score.model_dump(mode="json")
            langsmith.create_feedback(
                observation.run_id,
                key,
                score=observation.score.confidence,
                value=extra,
                session_id=session_id,
                stop_after_attempt=_ATTEMPTS,
            )

    return send
