"""LoRA: low-rank changes of the model's own projections (Hu et al. 2021)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal, Self

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from aspire_guard.errors import CorruptEvaluatorError
from aspire_guard.lm.language_model import LanguageModel

_FILE = "adapter_model.safetensors"
_TEXT = "text"
QUESTION_PLACEHOLDER = "{question}"
ANSWER_PLACEHOLDER = "{answer}"
# PEFT's own wrapper of a model adds this to the name of every weight, and expects it when it loads them.
_PREFIX = "base_model.model."


class Lora:
    """θp or θs as low-rank changes, in a copy of the model that shares every frozen weight.

    The frozen model stays as it is, so both can run at once. As θs it is active on `text` alone, which
    stands after the answer: the states before it are those of the frozen model and stay valid.

    Args:
        lm: the frozen model.
        config: rank, scale and target modules, as in PEFT.
        text: read before the prompt (θp) or after the answer (θs), where it may repeat `{question}` and `{answer}`:
            the model under θs then reads them itself, with the passage's states before its eyes.
    """

    method: Literal["lora"] = "lora"

    def __init__(self, lm: LanguageModel, config: LoraConfig, text: str) -> None:
        self.text = text
        self._lm = replace(lm, model=_sharing_copy(lm.model))
        inject_adapter_in_model(config, self._lm.model)
        self.config = self._lm.model.peft_config["default"]
        # PEFT makes them in the precision of the frozen weights, where small steps of training would be lost.
        for _, value in self.named_parameters():
            value.data = value.data.float()

    @classmethod
    def new(
        cls,
        lm: LanguageModel,
        text: str,
        *,
        rank: int,
        seed: int,
        target_modules: str | None = None,
    ) -> Lora:
        """A LoRA that changes nothing yet, scale 2.

        Args:
            lm: the frozen model.
            text: as in the constructor.
            rank: of every change.
            seed: equal seeds make equal matrices.
            target_modules: as in PEFT, where "all-linear" means all linear layers but the output head; None leaves the
                choice to PEFT, which for most kinds of model takes some projections of the attention.
        """
        # GPT-2 keeps its projections transposed; PEFT finds out by itself, but with a warning.
        transposed = any(isinstance(module, Conv1D) for module in lm.model.modules())
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, fan_in_fan_out=transposed, target_modules=target_modules
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(lm, config, text)

    def vectors(self, lm: LanguageModel, question: str = "", answer: str = "") -> Tensor:
        """`(tokens, dim)`: the embeddings of `text` with question and answer filled in."""
        return lm.embed(lm.token_ids(fill_text(self.text, question, answer)))

    def adapted(self, lm: LanguageModel) -> LanguageModel:
        """The copy with the changes; `lm` must be the model that it was made from."""
        return self._lm

    def on(self, lm: LanguageModel) -> Self:
        """A copy: the same changes in a copy of `lm`."""
        other = type(self)(lm, self.config, self.text)
        set_peft_model_state_dict(other._lm.model, self._state())
        return other.requires_grad_(False)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The low-rank matrices."""
        return (
            (name, value) for name, value in self._lm.model.named_parameters() if ".lora_" in name
        )

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradients of the low-rank matrices on or off."""
        for _, value in self.named_parameters():
            value.requires_grad_(requires_grad)
        return self

    def save(self, folder: Path, lm: LanguageModel) -> None:
        """Write the PEFT format of LoRA: `PeftModel.from_pretrained(base, folder)` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.copy(self.config)
        config.inference_mode = True
        # A set has another order in every process.
        config.target_modules = sorted(config.target_modules)
        config.save_pretrained(str(folder))
        tensors = {
            f"{_PREFIX}{name}": value.cpu().contiguous() for name, value in self._state().items()
        }
        # One entry alone: safetensors writes several in an order of its own, and equal adapters should be equal files.
        # And not by save_file, which makes a file that only its owner may read.
        (folder / _FILE).write_bytes(save(tensors, metadata={_TEXT: self.text}))

    @classmethod
    def load(cls, folder: Path, lm: LanguageModel) -> Lora:
        """Read what `save` wrote.

        Raises:
            CorruptEvaluatorError: a file is missing, truncated, or its tensors don't fit the base model.
        """
        path = folder / _FILE
        try:
            config = LoraConfig.from_pretrained(str(folder))
            with safe_open(path, framework="pt") as file:
                text = file.metadata()[_TEXT]
                tensors = {}
                for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    tensors[name.removeprefix(_PREFIX)] = file.get_tensor(name)
            adapter = cls(lm, config, text)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise CorruptEvaluatorError(
                f"expected a LoRA in {folder}, found {type(error).__name__}: {error}; restore the evaluator folder"
            ) from error
        expected = {name: tuple(value.shape) for name, value in adapter._state().items()}
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        if found != expected or not all(torch.isfinite(value).all() for value in tensors.values()):
            wrong = sorted(
                name
                for name in expected.keys() | found.keys()
                if expected.get(name) != found.get(name)
            )
            raise CorruptEvaluatorError(
                f"expected {len(expected)} finite low-rank matrices in {path}, found others "
                f"({', '.join(wrong[:2]) or 'values that are not finite'}); restore the evaluator folder"
            )
        set_peft_model_state_dict(adapter._lm.model, tensors)
        return adapter.requires_grad_(False)

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = get_peft_model_state_dict(self._lm.model)
        return state


def fill_text(text: str, question: str, answer: str) -> str:
    """A LoRA's text with question and answer in their places."""
    parts = {QUESTION_PLACEHOLDER: question, ANSWER_PLACEHOLDER: answer}
    # In one pass: a question may hold the words "{answer}".
    return re.sub("|".join(map(re.escape, parts)), lambda part: parts[part[0]], text)


def _sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules around the very same tensors: what is injected into it, the model doesn't see."""
    return copy.deepcopy(
        model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    )
