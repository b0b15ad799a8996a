"""A tree of texts that a language model reads in every way, and the plain passes that it must agree with.

Three prefixes of very different lengths have three branches each, and each branch goes on after that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aspire_guard.lm.language_model import LanguageModel, pad

_ROWS = range(3)


@dataclass(frozen=True)
class _Segment:
    """A stretch of the text of each branch of each row, `starts[row][branch]` and `lengths[row][branch]` in tokens."""

    starts: Sequence[Sequence[int]]
    lengths: Sequence[Sequence[int]]

    @property
    def ends(self) -> list[list[int]]:
        """The token after the stretch."""
        ends: list[list[int]] = []
        for starts, lengths in zip(self.starts, self.lengths, strict=True):
            ends.append([start + length for start, length in zip(starts, lengths, strict=True)])
        return ends


class _Tree:
    """Random texts, and the log-probabilities of the next token after each of their tokens in plain passes.

    Args:
        lm: the model.
        plain: the same model as `transformers` loads it.
        longest: the length of the longest prefix, and of the longest branches, in tokens.
    """

    def __init__(self, lm: LanguageModel, plain: Any, longest: int) -> None:
        self._lm = lm
        half = (longest + 1) // 2
        few = min(longest, 5)
        prefixes = [longest, 1, half]
        branches = [[longest, 1, few], [few, half, 1], [1, few, longest]]
        rests = [[1, half, few], [few, 1, 1], [few, few, 1]]
        self.prefixes = _Segment([[0] * 3] * 3, [[prefix] * 3 for prefix in prefixes])
        self.branches = _Segment(self.prefixes.ends, branches)
        self.rests = _Segment(self.branches.ends, rests)

        generator = torch.Generator().manual_seed(0)
        self._texts: list[list[Tensor]] = []
        self._expected: list[list[Tensor]] = []
        for prefix, ends in zip(prefixes, self.rests.ends, strict=True):
            texts = torch.randint(3, 260, (3, max(ends)), generator=generator)
            texts[:, :prefix] = texts[0, :prefix]
            row = [text[:end] for text, end in zip(texts, ends, strict=True)]
            logits = [plain(input_ids=text[None]).logits[0] for text in row]
            self._texts.append(row)
            self._expected.append([values.float().log_softmax(-1) for values in logits])

    def embed(self, row: int, branch: int, segment: _Segment) -> Tensor:
        """Return the embeddings of a branch's stretch, `(tokens, dim)`."""
        start, end = segment.starts[row][branch], segment.ends[row][branch]
        return self._lm.embed(self._texts[row][branch][start:end])

    def embed_all(self, segment: _Segment) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all branches, `(rows, branches, tokens, dim)`, and their mask."""
        parts = [self.embed(row, branch, segment) for row in _ROWS for branch in _ROWS]
        embeddings, mask = pad(parts)
        return _split_rows(embeddings), _split_rows(mask)

    def measure(self, hidden: Tensor, segment: _Segment) -> float:
        """Return the largest difference after the last tokens of a stretch, of which `hidden` has all or the last.

        Args:
            hidden: final hidden states, `(rows, branches, tokens, hidden)`. The stretches begin at the first token.
            segment: the stretch.
        """
        largest = 0.0
        for row in _ROWS:
            for branch in range(hidden.shape[1]):
                start, end = segment.starts[row][branch], segment.ends[row][branch]
                found = self._lm.logits(hidden[row, branch, : end - start]).log_softmax(-1)
                expected = self._expected[row][branch][start:end]
                difference = float((found - expected).abs().max())
                largest = max(largest, math.inf if math.isnan(difference) else difference)
        return largest


def _split_rows(values: Tensor) -> Tensor:
    """Return `values` `(rows * branches, …)` as `(rows, branches, …)`."""
    return values.view(3, 3, *values.shape[1:])


@torch.inference_mode()
def compare_trees(lm: LanguageModel, plain: Any, longest: int) -> dict[str, float]:
    """Return the largest difference, in nats, between predictions and those of plain passes in each way of reading.

    Args:
        lm: the model.
        plain: the same model as `transformers` loads it.
        longest: the length of the longest prefix, and of the longest branches, in tokens. A text is three times as
            long at most.
    """
    tree = _Tree(lm, plain, longest)
    largest: dict[str, float] = {}

    whole = _Segment(tree.prefixes.starts, tree.rests.ends)
    embeddings, mask = tree.embed_all(whole)
    alone = []
    for row, branch in ((row, branch) for row in _ROWS for branch in _ROWS):
        text = embeddings[row, branch, mask[row, branch]]
        states, hidden = lm.extend(
            lm.empty_states(1), text[None, None], torch.ones(1, 1, len(text), dtype=torch.bool)
        )
        alone.append(hidden[0, 0])
    hidden, _ = pad(alone)
    largest["alone"] = tree.measure(_split_rows(hidden), whole)

    _, hidden = lm.extend(
        lm.empty_states(9), embeddings.flatten(0, 1)[:, None], mask.flatten(0, 1)[:, None]
    )
    largest["in a batch"] = tree.measure(_split_rows(hidden[:, 0]), whole)

    embeddings, mask = tree.embed_all(tree.prefixes)
    prefixes, hidden = lm.extend(lm.empty_states(3), embeddings[:, :1], mask[:, :1])
    largest["prefixes"] = tree.measure(hidden, tree.prefixes)

    states, hidden = lm.extend(prefixes.fork(3), *tree.embed_all(tree.branches))
    largest["branched"] = tree.measure(hidden, tree.branches)

    embeddings, mask = tree.embed_all(tree.rests)
    _, hidden = lm.extend(states, embeddings, mask)
    largest["continued"] = tree.measure(hidden, tree.rests)

    places = torch.tensor([[row, branch] for row in _ROWS for branch in _ROWS])
    rows = states.split_into_rows(places)
    _, hidden = lm.extend(rows, embeddings.flatten(0, 1)[:, None], mask.flatten(0, 1)[:, None])
    largest["continued in rows"] = tree.measure(_split_rows(hidden[:, 0]), tree.rests)

    parts: list[list[Tensor]] = []
    starts: list[list[int]] = []
    for row, ends in zip(_ROWS, tree.rests.ends, strict=True):
        parts.append([tree.embed(row, branch, tree.rests) for branch in _ROWS])
        starts.append([end - 1 for end in ends])
    last = _Segment(starts, [[1] * 3] * 3)
    hidden = lm.read_after_branches(states, parts)
    largest["judged"] = tree.measure(hidden[:, :, None], last)
    return largest
