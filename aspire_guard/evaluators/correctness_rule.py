"""The rule by which answers counted as right in training. The confidence is the probability of being right by it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from aspire_guard.errors import InputError
from aspire_guard.files import describe_validation_error

# The rule of an evaluator whose answers came with labels.
LABELS = "labels"

_MEASURES = {
    "rouge_l": "Rouge-L F1",
    "token_f1": "token F1",
    "exact_match": "exact match",
    "containment": "containment of a reference",
}
_MEASURES_WITH_THRESHOLD = ("rouge_l", "token_f1")
_PAPER_THRESHOLD = 0.7


class CorrectnessRule(BaseModel):
    """A rule by its name, as in recipes, on the command line and in the evaluator.

    Attributes:
        method: `rouge_l`, `exact_match`, `token_f1` or `containment`. Or `labels`, if the answers came with labels. Or
            `package.module:name` of a function, of a runnable that judges, or of anything else that grades. Or the
            path of a JSONL file of labels.
        threshold: γ, the lowest F1 of a right answer, in (0, 1]. Only `rouge_l` and `token_f1` have a
            threshold, by default 0.7.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "rouge_l"
    threshold: float | None = Field(default=None, gt=0, le=1, validate_default=True)

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method in (*_MEASURES, LABELS) or ":" in method or method.endswith(".jsonl"):
            return method
        raise ValueError(
            f"expected {', '.join(_MEASURES)}, package.module:name or labels.jsonl, found {method!r}"
        )

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        # The method is missing here if it was refused.
        method = info.data.get("method")
        if method in _MEASURES_WITH_THRESHOLD:
            return _PAPER_THRESHOLD if threshold is None else threshold
        if threshold is not None and method is not None:
            raise ValueError(
                f"expected a threshold only with {' or '.join(_MEASURES_WITH_THRESHOLD)}, found one with {method}"
            )
        return None

    @classmethod
    def from_name(cls, method: str, threshold: float | None = None) -> CorrectnessRule:
        """Make the rule of this name.

        Raises:
            InputError: there is no rule of this name, or it has no threshold.
        """
        try:
            return cls(method=method, threshold=threshold)
        except ValidationError as error:
            found = describe_validation_error(error, "the rule")
            raise InputError(f"correctness: {found}; fix it") from error

    @property
    def is_measure(self) -> bool:
        """True for the overlap measures, False for a rule that runs a user's code or reads a user's file."""
        return self.method in _MEASURES

    def with_threshold(self, threshold: float) -> CorrectnessRule:
        """Return the rule with another threshold, or unchanged if it has no threshold."""
        if self.threshold is None:
            return self
        return CorrectnessRule(method=self.method, threshold=threshold)

    def __str__(self) -> str:
        name = _MEASURES.get(self.method, self.method)
        return name if self.threshold is None else f"{name} ≥ {self.threshold:g}"
