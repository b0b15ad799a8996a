"""θp and θs, whatever they are made of: what the answering and the judging side need of an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, Self

from torch import Tensor, nn

from aspire_guard.lm.language_model import LanguageModel


class Adapter(Protocol):
    """Parameters beside the frozen weights θ, and the vectors they are read with.

    θp's vectors stand before the prompt and θs's after the answer; where an adapter changes the
    model itself, it does so in a copy that shares the frozen weights, so θ is never touched.
    """

    @property
    def method(self) -> Literal["soft_prompt", "lora"]:
        """What it is made of."""
        ...

    @property
    def text(self) -> str:
        """The words that it is read with; empty where its vectors are no words."""
        ...

    def vectors(self, lm: LanguageModel, question: str = "", answer: str = "") -> Tensor:
        """`(length, dim)`: input embeddings that stand where tokens would; θs may repeat question and answer."""
        ...

    def adapted(self, lm: LanguageModel) -> LanguageModel:
        """The model that runs what this adapter is active on; `lm` itself where only its input differs."""
        ...

    def on(self, lm: LanguageModel) -> Self:
        """A copy of the adapter over the same weights, which may have another precision."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What training moves, always float32."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradients on or off."""
        ...

    def save(self, folder: Path, lm: LanguageModel) -> None:
        """Write the adapter in PEFT's format."""
        ...
