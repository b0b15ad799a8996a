"""Entailment by a natural language inference model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.smollm2 import silence_transformers


class NliEntailment:
    """A cross-encoder of `transformers` with a label "entailment". It reads each answer after its question.

    Args:
        name: a local folder, or an id of the Hugging Face hub such as `microsoft/deberta-large-mnli`.

    Raises:
        BaseModelError: there is no such model, or the model has no such label.
    """

    def __init__(self, name: str) -> None:
        try:
            with silence_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
                self._model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval()
        except Exception as error:
            # As with base models, transformers raises nearly anything here.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BaseModelError(
                f"expected an NLI model (a local folder or a hub id), found {name!r}, which can't be loaded: {reason}; "
                "check the name, or leave it out to compare answers by Rouge-L"
            ) from error
        labels = {str(label).lower(): int(i) for i, label in self._model.config.id2label.items()}
        if "entailment" not in labels:
            raise BaseModelError(
                f'expected an NLI model with the label "entailment", found {", ".join(labels)} in {name!r}; '
                "choose a model that was trained on MNLI or the like"
            )
        self._entailment = labels["entailment"]

    @torch.inference_mode()
    def entails(self, question: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Tell for each pair whether entailment is its likeliest label."""
        if not pairs:
            return []
        premises = [f"{question} {first}" for first, _ in pairs]
        hypotheses = [f"{question} {second}" for _, second in pairs]
        encoded = self._tokenizer(
            premises, hypotheses, padding=True, truncation=True, return_tensors="pt"
        )
        logits = self._model(**encoded).logits  # (pairs, labels)
        likeliest: list[int] = logits.argmax(-1).tolist()
        return [label == self._entailment for label in likeliest]
