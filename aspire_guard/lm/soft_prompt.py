"""A soft prompt: trained embeddings that stand where tokens would."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import torch
from peft import PeftType, PromptTuningConfig, TaskType
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from aspire_guard.errors import CorruptEvaluatorError
from aspire_guard.lm.language_model import LanguageModel

_TENSOR = "prompt_embeddings"
_FILE = "adapter_model.safetensors"


class SoftPrompt(nn.Module):
    """θp or θs as `length` trained vectors in the space of the input embeddings.

    Attributes:
        weight: the vectors, `(length, dim)`, always float32.
    """

    method: Literal["soft_prompt"] = "soft_prompt"
    text = ""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone().float())

    @classmethod
    def from_text(cls, lm: LanguageModel, text: str, length: int) -> SoftPrompt:
        """Start from the embeddings of `text`, repeated from its end backwards to fill `length`."""
        ids = lm.token_ids(text)
        repeats = -(-length // len(ids))  # rounded up
        repeated = ids.repeat(repeats)
        return cls(lm.embed(repeated[len(repeated) - length :]))

    def vectors(self, lm: LanguageModel, question: str = "", answer: str = "") -> Tensor:
        """Return the trained embeddings `(length, dim)`, whatever the question and the answer."""
        return self.weight

    def adapt(self, lm: LanguageModel) -> LanguageModel:
        """Return `lm` itself: a soft prompt only changes the input."""
        return lm

    def copy_onto(self, lm: LanguageModel) -> Self:
        """Copy the prompt, which is float32 beside weights of any precision."""
        return type(self)(self.weight)

    def __len__(self) -> int:
        return len(self.weight)

    def save(self, folder: Path, lm: LanguageModel) -> None:
        """Write the PEFT format of prompt tuning: `PeftModel.from_pretrained(base, folder)` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        config = PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            peft_type=PeftType.PROMPT_TUNING,
            num_virtual_tokens=len(self),
            token_dim=self.weight.shape[1],
            num_transformer_submodules=1,
            num_attention_heads=lm.config.num_attention_heads,
            num_layers=lm.config.num_hidden_layers,
            inference_mode=True,
        )
        config.save_pretrained(str(folder))
        weight = self.weight.detach().cpu().contiguous()
        # `save_file` would make a file that only its owner may read.
        (folder / _FILE).write_bytes(save({_TENSOR: weight}))

    @classmethod
    def load(cls, folder: Path, lm: LanguageModel) -> SoftPrompt:
        """Read what `save` wrote.

        Raises:
            CorruptEvaluatorError: the file is missing or truncated, or its tensor doesn't fit the base model.
        """
        path = folder / _FILE
        try:
            tensors = load_file(path)
            weight = tensors[_TENSOR]
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())
            raise CorruptEvaluatorError(
                f"expected a soft prompt in {path}, found {found[:300]}; restore the evaluator folder"
            ) from error
        dim = lm.embedding_weight.shape[1]
        is_float = weight.dtype == torch.float32 and len(tensors) == 1
        fits = weight.ndim == 2 and weight.shape[1] == dim and 0 < len(weight) < lm.max_length
        if not is_float or not fits or not torch.isfinite(weight).all():
            raise CorruptEvaluatorError(
                f"expected finite embeddings of shape (length, {dim}) in {path}, found {len(tensors)} tensors, one "
                f"in {weight.dtype} of shape {tuple(weight.shape)}; restore the evaluator folder"
            )
        return cls(weight.to(lm.device))
