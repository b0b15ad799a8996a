"""The interface of θp and θs, whatever they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, Self

from torch import Tensor, nn

from aspire_guard.lm.language_model import LanguageModel


class Adapter(Protocol):
    """Parameters beside the frozen weights θ, and the vectors that they are read with.

    The vectors of θp stand before the prompt, those of θs after the answer. An adapter that changes
    the model itself does so in a copy that shares the frozen weights, so θ is never touched.
    """

    @property
    def method(self) -> Literal["soft_prompt", "lora"]:
        """The kind of parameters."""
        ...

    @property
    def text(self) -> str:
        """The words that it is read with, or an empty string if its vectors are not words."""
        ...

    def vectors(self, lm: LanguageModel, question: str = "", answer: str = "") -> Tensor:
        """Return the input embeddings that stand where tokens would, `(length, dim)`.

        θs may repeat the question and the answer in them.
        """
        ...

    def adapt(self, lm: LanguageModel) -> LanguageModel:
        """Return the model that runs the tokens under this adapter.

        That is `lm` itself if the adapter only changes the input.
        """
        ...

    def copy_onto(self, lm: LanguageModel) -> Self:
        """Copy the adapter onto a model with the same weights, maybe in another precision."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the trainable parameters, always float32."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradients on or off."""
        ...

    def save(self, folder: Path, lm: LanguageModel) -> None:
        """Write the adapter in PEFT's format."""
        ...
