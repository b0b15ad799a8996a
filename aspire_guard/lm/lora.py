"""LoRA: low-rank changes to the model's own projections (Hu et al. 2021)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_MODULES
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from aspire_guard.errors import CorruptEvaluatorError, InputError
from aspire_guard.files import describe_validation_error
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.strict_json import read_json

_FILE = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_MOST_CONFIG_BYTES = 2**20
_MOST_TARGET_MODULES = 4096
_LONGEST_TEXT = 10_000  # characters
_LARGEST_ALPHA = 1e6
_TEXT = "text"
QUESTION_PLACEHOLDER = "{question}"
ANSWER_PLACEHOLDER = "{answer}"
# PEFT's own wrapper of a model adds this to the name of every weight, and expects it when it loads them.
_PREFIX = "base_model.model."


class _LoraSettings(BaseModel):
    """The part of PEFT's config that is read from a file. The other settings are PEFT's own defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, le=_LARGEST_ALPHA)
    # A list of names: PEFT would read a string as a pattern, and some patterns take years.
    target_modules: list[str] = Field(min_length=1, max_length=_MOST_TARGET_MODULES)


class Lora:
    """θp or θs as low-rank changes, in a copy of the model that shares every frozen weight.

    The frozen model stays as it is, so both can run at once. A θs is active only on `text`, which stands
    after the answer: the states before it are those of the frozen model and stay valid.

    Args:
        lm: the frozen model.
        config: rank, scale and target modules, as in PEFT.
        text: the words before the prompt (θp) or after the answer (θs). The words of θs may repeat
            `{question}` and `{answer}`: the model under θs then reads both itself, and sees the states
            of the passage.
    """

    method: Literal["lora"] = "lora"

    def __init__(
        self,
        lm: LanguageModel,
        config: LoraConfig,
        text: str,
    ) -> None:
        self.text = text
        self._lm = replace(lm, model=_copy_modules(lm.model))
        inject_adapter_in_model(config, self._lm.model)
        self.config = self._lm.model.peft_config["default"]
        # PEFT makes the matrices in the precision of the frozen weights, which may lose small steps of training.
        for _, matrix in self.named_parameters():
            matrix.data = matrix.data.float()

    @classmethod
    def from_text(
        cls,
        lm: LanguageModel,
        text: str,
        *,
        rank: int,
        seed: int,
        target_modules: str | None = None,
        first_layer: int = 0,
    ) -> Lora:
        """Make a LoRA that changes nothing yet, with a scale of 2.

        Args:
            lm: the frozen model.
            text: as in the constructor.
            rank: the rank of every change.
            seed: equal seeds make equal matrices.
            target_modules: as in PEFT, where "all-linear" means all linear layers except the output
                head. None leaves the choice to PEFT, which takes some projections of the attention for
                the kinds of model that it knows, and means all plain linear layers for the others.
            first_layer: the first layer that is changed, in all its linear modules. 0 changes all layers.

        Raises:
            InputError: no module of the model can be changed.
        """
        modules: str | list[str] | None = target_modules or _choose_modules(lm.model)
        if first_layer:
            modules = _list_linear_modules(lm.model, first_layer)
        config = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            fan_in_fan_out=_has_transposed_weights(lm),
            target_modules=modules,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return cls(lm, config, text)
            except (
                ValueError
            ) as error:  # PEFT found no module of these names, or none of a known kind
                raise InputError(
                    f"expected a model with linear layers for a LoRA, found {type(lm.model).__name__}: "
                    f"{str(error).splitlines()[0]}; choose the method soft_prompt"
                ) from error

    def vectors(self, lm: LanguageModel, question: str = "", answer: str = "") -> Tensor:
        """Return the embeddings of `text` with question and answer filled in, `(tokens, dim)`."""
        filled = fill_text(self.text, question, answer)
        return lm.embed(lm.token_ids(filled))

    def adapt(self, lm: LanguageModel) -> LanguageModel:
        """Return the copy of the model with the changes.

        `lm` must be the model that it was copied from.
        """
        return self._lm

    def copy_onto(self, lm: LanguageModel) -> Self:
        """Make the same changes in a copy of `lm`."""
        copied = type(self)(lm, self.config, self.text)
        set_peft_model_state_dict(copied._lm.model, self._state())
        return copied.requires_grad_(False)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the low-rank matrices."""
        for name, parameter in self._lm.model.named_parameters():
            if ".lora_" in name:
                yield name, parameter

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradients of the low-rank matrices on or off."""
        for _, matrix in self.named_parameters():
            matrix.requires_grad_(requires_grad)
        return self

    def save(self, folder: Path, lm: LanguageModel) -> None:
        """Write the PEFT format of LoRA: `PeftModel.from_pretrained(base, folder)` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.copy(self.config)
        config.inference_mode = True
        # A set has another order in every process.
        config.target_modules = sorted(config.target_modules)
        config.save_pretrained(str(folder))
        tensors: dict[str, Tensor] = {}
        for name, matrix in self._state().items():
            tensors[_PREFIX + name] = matrix.cpu().contiguous()
        # The text is the only entry: safetensors would write several in an order of its own, but equal adapters
        # should be equal files. `save_file` would make a file that only its owner may read.
        content = save(tensors, metadata={_TEXT: self.text})
        (folder / _FILE).write_bytes(content)

    @classmethod
    def load(cls, folder: Path, lm: LanguageModel) -> Lora:
        """Read what `save` wrote, or what a stranger did.

        Only rank, scale and target modules are read from the config. Its other settings could import code, rewrite the
        frozen weights or make the scores random.

        Raises:
            CorruptEvaluatorError: a file is missing or truncated, or its tensors don't fit the base model.
        """
        path = folder / _FILE
        try:
            settings = _LoraSettings.model_validate(read_json(folder / _CONFIG, _MOST_CONFIG_BYTES))
            text, tensors = _read_tensors(path, settings.r)
            config = LoraConfig(
                r=settings.r,
                lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # PEFT only multiplies by it
                target_modules=list(settings.target_modules),
                fan_in_fan_out=_has_transposed_weights(lm),
            )
            adapter = cls(lm, config, text)
        except (
            Exception
        ) as error:  # PEFT and safetensors raise nearly anything for a file that they can't use.
            raise CorruptEvaluatorError(
                f"expected a LoRA in {folder}, found {_describe(error)}; restore the evaluator folder"
            ) from error
        _check_tensors(tensors, adapter._state(), path)
        set_peft_model_state_dict(adapter._lm.model, tensors)
        return adapter.requires_grad_(False)

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = get_peft_model_state_dict(self._lm.model)
        return state


def _choose_modules(model: Any) -> list[str]:
    """Return the modules that PEFT changes by default in models of this kind, or all linear layers if it knows none."""
    default: Sequence[str] = DEFAULT_MODULES.get(model.config.model_type, [])
    paths = [path for path, _ in model.named_modules()]
    if isinstance(default, str):  # a pattern of whole paths
        modules = [path for path in paths if re.fullmatch(default, path)]
    else:
        names = {path.rpartition(".")[2] for path in paths}
        modules = [name for name in default if name in names]
    return modules or _list_linear_layers(model)


def _list_linear_layers(model: Any) -> list[str]:
    """List the names of all linear layers except the output head.

    A router of experts may be a kind of linear layer that returns more than one tensor, which no LoRA can change.
    PEFT's own "all-linear" takes it for one.
    """
    linear: set[str] = set()
    other: set[str] = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or module is model.get_output_embeddings():
            continue
        name = path.rpartition(".")[2]
        is_plain = type(module) in (nn.Linear, Conv1D)
        # A number is also the name of whole layers.
        (linear if is_plain else other).add(path if name.isdigit() else name)
    return sorted(linear - other)


def _list_linear_modules(model: nn.Module, first_layer: int) -> list[str]:
    """List the paths of the plain linear layers from the layer number `first_layer` on."""
    paths: list[str] = []
    for path, module in model.named_modules():
        numbers = [part for part in path.split(".") if part.isdigit()]
        if numbers and int(numbers[0]) >= first_layer and type(module) in (nn.Linear, Conv1D):
            paths.append(path)
    return paths


def fill_text(text: str, question: str, answer: str) -> str:
    """Put question and answer into their places in a LoRA's text."""
    parts = {QUESTION_PLACEHOLDER: question, ANSWER_PLACEHOLDER: answer}
    placeholders = "|".join(re.escape(placeholder) for placeholder in parts)
    # In one pass, since a question may hold the words "{answer}".
    return re.sub(placeholders, lambda match: parts[match[0]], text)


def _copy_modules(model: nn.Module) -> nn.Module:
    """Copy the modules around the very same tensors, so that the model doesn't see changes to the copy."""
    tensors = chain(model.parameters(), model.buffers())
    shared = {id(tensor): tensor for tensor in tensors}
    return copy.deepcopy(model, shared)


def _has_transposed_weights(lm: LanguageModel) -> bool:
    """Tell whether the projections are kept transposed, as in GPT-2. PEFT would find out too, but with a warning."""
    return any(isinstance(module, Conv1D) for module in lm.model.modules())


def _read_tensors(path: Path, rank: int) -> tuple[str, dict[str, Tensor]]:
    """Read a LoRA's text and its matrices by name.

    Raises:
        ValueError: the text is too long, or a matrix has another rank or precision. Every matrix that is made for the
            config is thus no larger than a matrix in the file.
    """
    tensors: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {})[_TEXT]
        if len(text) > _LONGEST_TEXT:
            raise ValueError(f"a text of {len(text):,} characters")
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            part = file.get_slice(name)
            if part.get_dtype() != "F32" or rank not in part.get_shape():
                found = f"{part.get_dtype()} of shape {part.get_shape()}"
                raise ValueError(f"{name} in {found}, not in F32 of rank {rank}")
            tensors[name.removeprefix(_PREFIX)] = file.get_tensor(name)
    if not tensors:
        raise ValueError("no matrices")
    return text, tensors


def _describe(error: Exception) -> str:
    """Return what was found, on one line."""
    if isinstance(error, ValidationError):
        return describe_validation_error(error, _CONFIG)
    found = f"{type(error).__name__}: {error}"
    return " ".join(found.split())[:300]


def _check_tensors(
    tensors: dict[str, Tensor],
    expected: dict[str, Tensor],
    path: Path,
) -> None:
    """Make sure that the matrices in a file have the expected names and shapes, and finite values.

    Raises:
        CorruptEvaluatorError: they do not.
    """
    wrong: list[str] = []
    for name in sorted(tensors.keys() | expected.keys()):
        if (
            name not in tensors
            or name not in expected
            or tensors[name].shape != expected[name].shape
        ):
            wrong.append(name)
    is_finite = all(torch.isfinite(matrix).all() for matrix in tensors.values())
    if wrong or not is_finite:
        raise CorruptEvaluatorError(
            f"expected {len(expected)} finite low-rank matrices in {path}, found others "
            f"({', '.join(wrong[:2]) or 'values that are not finite'}); restore the evaluator folder"
        )
