"""The check of a base model when it is loaded: batches, branches and continued caches read as plain passes do.

Some architectures read a token differently if there is padding beside it, if another branch lies between it and its
prefix, or if its prefix comes from a cache: recurrent layers, positions counted by slots, windows over the cache. Their
scores would depend on the batch. The probe compares what a model does, whatever its architecture is called.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor

from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates

# The texts are longer than every window of up to so many tokens. For larger windows the probe would take seconds.
LONGEST_WINDOW = 128
# Unseen slots cost no computation, so they reach beyond larger windows than the texts do.
_MOST_UNSEEN_SLOTS = 512
# The tokens of the longer prefix, of its longer branch and of what follows that, in addition to the window. Few tokens
# keep the probe cheap: then it costs little more than reading the weights four times.
_PREFIX, _BRANCH, _REST = 4, 2, 1
# In nats. Attention kernels differ by less in float32, faults by more.
_TOLERANCE = 0.01
_WITHOUT_PADDING = "a text without padding (its logits are more than the output head's, or its tokens see later ones)"
_TEXT = (
    "The first passenger railway between two cities opened in 1830. Its trains ran to a timetable, on tracks of their "
    "own, and nobody but the company could use them."
)


@dataclass(frozen=True)
class Difference:
    """The difference between two readings of the same tokens.

    Attributes:
        case: the way in which the tokens were read.
        nats: the largest difference between two log-probabilities.
    """

    case: str
    nats: float

    @property
    def is_large(self) -> bool:
        """Tell whether the readings differ by more than rounding. NaN differs from everything."""
        return not self.nats <= _TOLERANCE


@torch.inference_mode()
def compare_readings(lm: LanguageModel, attention: str) -> list[Difference]:
    """Compare what `lm` computes with plain passes, which have no padding, no branches and no cache.

    A prefix, and a branch after it, are longer than each window of up to `LONGEST_WINDOW` tokens that the config names,
    if the model has positions for them.

    Args:
        lm: the model.
        attention: the attention of the plain passes: the attention that the model was loaded with.

    Returns:
        The difference in each way of reading, the simplest way first.
    """
    windows = _list_windows(lm)
    window = max((size for size in windows if size <= LONGEST_WINDOW), default=0)
    if 2 * window + _PREFIX + _BRANCH + _REST > lm.max_length:
        window = 0
    prefix = window + _PREFIX
    short = prefix - 1
    branch = prefix + window + _BRANCH
    first, second = texts = _make_texts(lm, prefix, branch + _REST)
    expected = _read_plainly(lm, texts, attention)

    def measure(case: str, hidden: Tensor, places: list[tuple[int, int]]) -> Difference:
        """Compare the predictions after `hidden` `(n, hidden)` with those at n places, each a text and a token."""
        log_p = lm.logits(hidden).log_softmax(-1)  # (n, vocabulary)
        text, token = torch.tensor(places, device=log_p.device).unbind(-1)
        return Difference(case, float((log_p - expected[text, token]).abs().max()))

    embeddings, mask = pad([lm.embed(first[:prefix]), lm.embed(second[:short])])
    states, hidden = lm.extend(lm.empty_states(2), embeddings[:, None], mask[:, None])
    longer, shorter = hidden[0, 0], hidden[1, 0, :short]
    without_padding = measure(_WITHOUT_PADDING, longer, [(0, i) for i in range(prefix)])
    with_padding = measure("a text with padding beside it", shorter, [(1, i) for i in range(short)])

    # The second row has a branch without tokens.
    states = _add_unseen_slots(states, min(max(windows, default=0), _MOST_UNSEEN_SLOTS)).fork(2)
    branches = [[first[prefix:branch], second[prefix : prefix + 1]], [second[short : short + 2]]]
    states = lm.extend_branches(states, _embed_rows(lm, branches))
    ends = [(0, branch - 1), (1, prefix), (1, short + 1), (1, short - 1)]
    branched = measure("several branches after one prefix", states.hidden.flatten(0, 1), ends)

    rests = [
        [first[branch:], second[prefix + 1 : prefix + 2]],
        [second[short + 2 : short + 3], second[short : short + 1]],
    ]
    last = lm.read_after_branches(states, _embed_rows(lm, rests))
    ends = [(0, branch + _REST - 1), (1, prefix + 1), (1, short + 2), (1, short)]
    continued = measure("a continued cache", last.flatten(0, 1), ends)
    return [without_padding, with_padding, branched, continued]


def _embed_rows(lm: LanguageModel, rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """Return the embeddings `(tokens, dim)` of the ids `(tokens,)` of each branch of each row."""
    return [list(map(lm.embed, row)) for row in rows]


def _list_windows(lm: LanguageModel) -> list[int]:
    """List the windows that a config names, in tokens: each whole number under a name that speaks of a window."""
    windows: list[int] = []
    for name, value in lm.config.to_dict().items():
        is_size = any(word in name for word in ("window", "chunk_size", "local_attention"))
        is_count = "layers" in name or "pattern" in name
        if is_size and not is_count and type(value) is int:
            windows.append(value)
    return windows


def _make_texts(lm: LanguageModel, prefix: int, tokens: int) -> Tensor:
    """Make two texts, `(2, tokens)`, that share their first `prefix` tokens alone."""
    text = lm.token_ids(_TEXT)
    places = torch.arange(tokens).repeat(2, 1)
    places[1, prefix:] += 5
    return text[(places % len(text)).to(text.device)]


def _read_plainly(lm: LanguageModel, texts: Tensor, attention: str) -> Tensor:
    """Return the log-probabilities of the token after each token of `texts`, `(texts, tokens, vocabulary)`."""
    chosen = lm.model.config._attn_implementation
    lm.model.set_attn_implementation(attention)
    try:
        # Both texts are equally long, so a batch of them needs no padding.
        logits: Tensor = lm.model(input_ids=texts, use_cache=False).logits
    finally:
        lm.model.set_attn_implementation(chosen)
    return logits.float().log_softmax(-1)


def _add_unseen_slots(states: PrefixStates, slots: int) -> PrefixStates:
    """Add slots that no branch sees, such as the padding beside a much longer text.

    A model that counts slots, rather than positions, takes what follows for farther away.
    """
    layers = tuple(
        (pad_tensor(keys, (0, 0, 0, slots)), pad_tensor(values, (0, 0, 0, slots)))
        for keys, values in states.layers
    )
    return replace(states, layers=layers, visible=pad_tensor(states.visible, (0, slots)))
