"""The limits on the work for one answer: the overall time, and the budget of the fallbacks."""

from __future__ import annotations

from collections.abc import Callable

from aspire_guard.routing.routes import Budget, Fallback, Timeouts

NO_TIME = "the overall time is used up"


class BudgetTracker:
    """The time since a flow began, and what its fallbacks have spent.

    Args:
        budget: the limits on the fallbacks.
        timeouts: the limits on all work, in seconds.
        clock: returns a time in seconds that only grows.

    Attributes:
        hops: the number of calls of fallbacks.
        cost: the sum of the costs of these calls.
    """

    def __init__(self, budget: Budget, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self.hops = 0
        self.cost = 0.0
        self._budget = budget
        self._timeouts = timeouts
        self._clock = clock
        self._started = clock()

    @property
    def seconds_left(self) -> float | None:
        """The seconds until the overall timeout, at least 0, or None without such a timeout."""
        overall = self._timeouts.overall
        if overall is None:
            return None
        return max(0.0, overall - self._measure_elapsed())

    @property
    def is_out_of_time(self) -> bool:
        """True if the overall time is used up."""
        return self.seconds_left == 0.0

    def limit_timeout(self, seconds: float | None) -> float | None:
        """Shorten a timeout to the overall time that is left. None means no limit, as argument and as result."""
        left = self.seconds_left
        if seconds is None:
            return left
        if left is None:
            return seconds
        return min(seconds, left)

    def find_refusal(self, route: Fallback) -> str | None:
        """Return the reason why a fallback may not be called, or None if it may be called."""
        if self.is_out_of_time:
            return NO_TIME
        budget = self._budget
        if self.hops >= budget.hops:
            return f"the budget of {budget.hops} hops is used up"
        if budget.seconds is not None and self._measure_elapsed() >= budget.seconds:
            return f"the budget of {budget.seconds:g} s is used up"
        if budget.cost is not None and self.cost + route.cost > budget.cost:
            return f"its cost of {route.cost:g} is more than the budget has left"
        return None

    def spend(self, route: Fallback) -> None:
        """Count a call of a fallback."""
        self.hops += 1
        self.cost += route.cost

    def _measure_elapsed(self) -> float:
        return self._clock() - self._started
