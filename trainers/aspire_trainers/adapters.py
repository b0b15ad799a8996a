"""Where the θp or θs that training moves is made."""

from __future__ import annotations

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_trainers.config import FitConfig


def adapter_to_train(lm: LanguageModel, config: FitConfig, *, seed: int, start: Adapter | None = None) -> Adapter:
    """A copy of `start`, or an untrained adapter of the kind that `config` names; equal seeds make equal ones."""
    if start is not None:
        return start.on(lm).requires_grad_()
    if config.method == "lora":
        modules = config.target_modules
        return Lora.new(lm, config.text, rank=config.rank, seed=seed, target_modules=modules)
    return SoftPrompt.from_text(lm, config.text, config.length)
