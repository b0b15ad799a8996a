"""LangSmith feedback: the confidence of each observed answer, on its trace and off the request path.

handler = AspireCallbackHandler(evaluator, on_score=langsmith_feedback())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from aspire_guard.observe import Observation

# The client's default of ten attempts, with growing pauses, would delay all other answers for minutes while
# LangSmith is down.
_ATTEMPTS = 2


def langsmith_feedback(
    client: Any = None, *, session_id: UUID | str | None = None, key: str = "aspire_confidence"
) -> Callable[[Observation], None]:
    """Make an `on_score` for `AspireCallbackHandler` that sends each score to LangSmith as feedback on the run.

    It runs in the handler's thread. If LangSmith can't be reached, the handler counts and logs the failure.

    Args:
        client: a `langsmith.Client`, or None for a client that is configured by the environment.
        session_id: the id of the project that the runs are traced to, which newer deployments require.
        key: the name of the feedback.
    """
    from langsmith import Client

    langsmith = Client() if client is None else client

    def send(observation: Observation) -> None:
        if observation.score is None:
            return
        langsmith.create_feedback(
            observation.run_id,
            key,
            score=observation.score.confidence,
            value=observation.score.model_dump(mode="json"),
            session_id=session_id,
            stop_after_attempt=_ATTEMPTS,
        )

    return send
