"""Where a new θp or θs is made."""

from __future__ import annotations

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_trainers.config import FitConfig


def new_adapter(lm: LanguageModel, config: FitConfig, *, seed: int) -> Adapter:
    """An untrained adapter of the kind that `config` names; equal seeds make equal ones."""
    if config.method == "lora":
        modules = config.target_modules
        return Lora.new(lm, config.text, rank=config.rank, seed=seed, target_modules=modules)
    return SoftPrompt.from_text(lm, config.text, config.length)
