"""Training answers in the style of large language models, made from QA records: right answers and their wrong twins."""

from aspire_trainers.data.styled_answers.make import (
    ERROR_KINDS,
    LabelledSentence,
    MadeAnswers,
    StyledAnswer,
    make_answers,
)
from aspire_trainers.data.styled_answers.styles import STYLES

__all__ = [
    "ERROR_KINDS",
    "STYLES",
    "LabelledSentence",
    "MadeAnswers",
    "StyledAnswer",
    "make_answers",
]
