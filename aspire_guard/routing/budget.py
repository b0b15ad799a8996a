"""What the way of one answer may still take: the time of all of it, and the budget of its fallbacks."""

from __future__ import annotations

from collections.abc import Callable

from aspire_guard.routing.routes import Budget, Fallback, Timeouts

NO_TIME = "the overall time is used up"


class BudgetTracker:
    """Time since the flow began, and what its fallbacks have used up.

    Args:
        budget: of the fallbacks.
        timeouts: of all work.
        clock: seconds that only grow.
    """

    def __init__(self, budget: Budget, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self.budget, self.timeouts, self.clock = budget, timeouts, clock
        self.started = clock()
        self.hops, self.cost = 0, 0.0

    @property
    def left(self) -> float | None:
        """Seconds that are left of all; None where there is no limit."""
        overall = self.timeouts.overall
        return None if overall is None else max(0.0, overall - (self.clock() - self.started))

    @property
    def is_out_of_time(self) -> bool:
        """Whether nothing is left of the overall time."""
        return self.left == 0.0

    def within(self, seconds: float | None) -> float | None:
        """A time limit that also keeps to the overall one."""
        left = self.left
        if seconds is None or left is None:
            return left if seconds is None else seconds
        return min(seconds, left)

    def refusal(self, route: Fallback) -> str | None:
        """Why a fallback may not be asked; None where it may."""
        if self.is_out_of_time:
            return NO_TIME
        budget = self.budget
        if self.hops >= budget.hops:
            return f"the budget of {budget.hops} hops is used up"
        if budget.seconds is not None and self.clock() - self.started >= budget.seconds:
            return f"the budget of {budget.seconds:g} s is used up"
        if budget.cost is not None and self.cost + route.cost > budget.cost:
            return f"its cost of {route.cost:g} is more than the budget has left"
        return None

    def spend(self, route: Fallback) -> None:
        """Count a fallback that is asked."""
        self.hops, self.cost = self.hops + 1, self.cost + route.cost
