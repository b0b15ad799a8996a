"""By which rule answers counted as right when an evaluator was trained: what its confidence is the probability of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from aspire_guard.errors import InputError
from aspire_guard.files import describe_validation_error

_MEASURES = {"rouge_l": "Rouge-L F1", "token_f1": "token F1", "exact_match": "exact match"}
_WITH_THRESHOLD = ("rouge_l", "token_f1")
_PAPER_THRESHOLD = 0.7


class CorrectnessRule(BaseModel):
    """The rule by its name: in recipes, on the command line and in the evaluator.

    Attributes:
        method: `rouge_l`, `exact_match`, `token_f1`; `package.module:name` of a function, of a runnable that judges, or
            of anything else that grades; or the path of a JSONL file of labels.
        threshold: γ, the least F1 of a right answer, in (0, 1]; only `rouge_l` and `token_f1` have one, 0.7 by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "rouge_l"
    threshold: float | None = Field(default=None, gt=0, le=1, validate_default=True)

    @field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        if method in _MEASURES or ":" in method or method.endswith(".jsonl"):
            return method
        raise ValueError(
            f"expected {', '.join(_MEASURES)}, package.module:name or labels.jsonl, found {method!r}"
        )

    @field_validator("threshold")
    @classmethod
    def _fits_the_method(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        method = info.data.get("method")
        if method in _WITH_THRESHOLD:
            return _PAPER_THRESHOLD if threshold is None else threshold
        if threshold is not None and method is not None:
            raise ValueError(
                f"only {' and '.join(_WITH_THRESHOLD)} have a threshold, {method} has none"
            )
        return None

    @classmethod
    def named(cls, method: str, threshold: float | None = None) -> CorrectnessRule:
        """The rule of this name.

        Raises:
            InputError: there is none, or it has no threshold.
        """
        try:
            return cls(method=method, threshold=threshold)
        except ValidationError as error:
            raise InputError(
                f"correctness: {describe_validation_error(error, 'the rule')}; fix it"
            ) from error

    @property
    def is_measure(self) -> bool:
        """Whether it is one of the overlap measures; any other runs a user's code or reads a user's file."""
        return self.method in _MEASURES

    def at(self, threshold: float) -> CorrectnessRule:
        """The same rule with another threshold, if it has one."""
        return (
            self
            if self.threshold is None
            else CorrectnessRule(method=self.method, threshold=threshold)
        )

    def __str__(self) -> str:
        name = _MEASURES.get(self.method, self.method)
        return name if self.threshold is None else f"{name} ≥ {self.threshold:g}"
