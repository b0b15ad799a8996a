"""The settings of a review queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.review.ticket import Ticket
from aspire_guard.review.webhooks import Webhook

Listener = Callable[[Ticket], object]

_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class QueueSettings(BaseModel):
    """The settings of a review queue; see `ReviewQueue` for their meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease: _Seconds = 300.0
    undo_within: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    second_opinions: _Share = 0.0
    expire_after: _Seconds | None = None
    lock_timeout: _Seconds = 10.0
    webhooks: tuple[Webhook, ...] = ()
    on_submit: Listener | None = None
    on_decision: Listener | None = None
