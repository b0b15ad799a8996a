"""The probe for refusals: how likely an answer is to decline, told from the states in which the model read it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, FiniteFloat
from torch import Tensor


class RefusalProbe(BaseModel):
    """A logistic regression on the values that attention layers cached for an answer after its question alone.

    The model has put the sense of the answer into these values, whatever its language, so that no list of phrases is
    needed. The probe belongs to the base model, to θp and to the prompt layout, under which it was fitted.

    Attributes:
        weights: the weights of a layer's mean values, by the number of the layer.
        intercept: the log-odds of declining if all values are 0. It is fitted so that few right answers reach one half.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[int, tuple[FiniteFloat, ...]]
    intercept: FiniteFloat

    def measure(self, values: Sequence[Tensor]) -> float | None:
        """Return the probability in [0, 1] that an answer declines, or None if the answer is empty.

        Args:
            values: the mean of each layer's cached values over the answer's tokens, `(kv_heads * head_dim,)` each, or
                nothing if the answer is empty.
        """
        if not values:
            return None
        log_odds = self.intercept
        for layer, weights in self.weights.items():
            layer_values = values[layer].float()
            log_odds += float(layer_values @ layer_values.new_tensor(weights))
        return 1 / (1 + math.exp(-max(log_odds, -700.0)))
