"""The parts of a review item that come from the flow's candidates and from the route's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from aspire_guard.errors import name_error_type
from aspire_guard.review.item import ReviewCandidate
from aspire_guard.routing.decision_log import Candidate
from aspire_guard.routing.routes import HumanReview


def make_review_candidate(candidate: Candidate) -> ReviewCandidate:
    """Return an answer of the run as the reviewer sees it."""
    return ReviewCandidate(
        route="chain" if candidate.is_from_chain else "fallback",
        name=candidate.name,
        answer=candidate.exchange.answer,
        score=candidate.score,
    )


def make_review_metadata(
    route: HumanReview, input: Any, metadata: Mapping[str, Any]
) -> dict[str, JsonValue]:
    """Return the metadata of an item. Values that JSON does not have become texts.

    The answer is reviewed even if the route's function fails. Its error is in the metadata then.
    """
    if isinstance(route.metadata, tuple):
        found = {key: metadata[key] for key in route.metadata if key in metadata}
    else:
        try:
            found = dict(route.metadata(input, metadata))
        except Exception as error:
            return {"metadata_error": name_error_type(error)}
    kept: dict[str, JsonValue] = json.loads(json.dumps(found, default=str, skipkeys=True))
    return kept
