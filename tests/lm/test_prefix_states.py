"""States of a prefix, extended step by step, against one full forward pass of the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.testing import MAX_LENGTH, tiny_lm

LENGTHS = (7, 3, 12)


def _draw_embeddings(lm: LanguageModel, *shape: int, seed: int = 0) -> Tensor:
    ids = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))
    return lm.embed(ids)


def _draw_prompts(lm: LanguageModel) -> list[Tensor]:
    return [_draw_embeddings(lm, length, seed=length) for length in LENGTHS]


def _compute_full_logits(lm: LanguageModel, *parts: Tensor) -> Tensor:
    """Logits `(tokens, vocabulary)` of one ordinary forward pass over the concatenated embeddings."""
    logits: Tensor = lm.model(inputs_embeds=torch.cat(parts)[None]).logits[0]
    return logits


def _make_full_mask(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def _assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_prefill_gives_the_last_state_of_a_full_forward_pass(lm: LanguageModel) -> None:
    """Prompts of three lengths in one batch each end in the state they have alone."""
    prompts = _draw_prompts(lm)
    states = lm.prefill(prompts)
    assert states.lengths.tolist() == [[7], [3], [12]]
    for row, prompt in enumerate(prompts):
        _assert_close(lm.logits(states.hidden)[row, 0], _compute_full_logits(lm, prompt)[-1])


def test_branches_extended_twice_equal_full_forward_passes(lm: LanguageModel) -> None:
    """Two extensions of four branches each: every token of every branch sees its own path only."""
    prompts = _draw_prompts(lm)
    first, second = _draw_embeddings(lm, 3, 4, 2, seed=1), _draw_embeddings(lm, 3, 4, 5, seed=2)
    states = lm.prefill(prompts).fork(4)
    states, hidden_first = lm.extend(states, first, _make_full_mask(3, 4, 2))
    states, hidden_second = lm.extend(states, second, _make_full_mask(3, 4, 5))
    assert states.lengths.tolist() == [[n + 7] * 4 for n in LENGTHS]
    for row, prompt in enumerate(prompts):
        for branch in range(4):
            expected = _compute_full_logits(lm, prompt, first[row, branch], second[row, branch])[
                len(prompt) :
            ]
            found = torch.cat([hidden_first[row, branch], hidden_second[row, branch]])
            _assert_close(lm.logits(found), expected)
            _assert_close(lm.logits(states.hidden)[row, branch], expected[-1])


@pytest.mark.parametrize(
    "mask",
    [[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [0, 1, 0, 1, 1]],
    ids=["right", "between", "left and between"],
)
def test_padding_may_be_anywhere(lm: LanguageModel, mask: list[int]) -> None:
    """The real tokens' states don't depend on the padding, before and after a second extension."""
    real = torch.tensor(mask, dtype=torch.bool)
    prompt, tokens = _draw_embeddings(lm, 5, seed=3), _draw_embeddings(lm, 5, seed=4)
    states, _ = lm.extend(lm.empty_states(1), prompt[None, None], real[None, None])
    states, hidden = lm.extend(states, tokens[None, None], real[None, None])
    expected = _compute_full_logits(lm, prompt[real], tokens[real])[3:]
    _assert_close(lm.logits(hidden[0, 0, real]), expected)
    _assert_close(lm.logits(states.hidden)[0, 0], expected[-1])
    assert states.lengths.tolist() == [[6]]


def test_branches_may_have_different_lengths(lm: LanguageModel) -> None:
    """A branch that gets no token keeps its state, and the others continue."""
    prompt, tokens = _draw_embeddings(lm, 6, seed=5), _draw_embeddings(lm, 1, 3, 4, seed=6)
    before = lm.prefill([prompt]).fork(3)
    mask = torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]], dtype=torch.bool)
    states, _ = lm.extend(before, tokens, mask)
    assert torch.equal(states.hidden[0, 1], before.hidden[0, 1])
    _assert_close(
        lm.logits(states.hidden)[0, 0], _compute_full_logits(lm, prompt, tokens[0, 0])[-1]
    )
    _assert_close(
        lm.logits(states.hidden)[0, 2], _compute_full_logits(lm, prompt, tokens[0, 2, :2])[-1]
    )
    after = _draw_embeddings(lm, 1, 3, 2, seed=7)
    states, _ = lm.extend(states, after, _make_full_mask(1, 3, 2))
    _assert_close(lm.logits(states.hidden)[0, 1], _compute_full_logits(lm, prompt, after[0, 1])[-1])


def test_the_order_of_a_batch_does_not_matter(lm: LanguageModel) -> None:
    """Each prompt has the state that it has alone, in any order."""
    prompts = _draw_prompts(lm)
    alone = torch.cat([lm.prefill([prompt]).hidden for prompt in prompts])
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]):
        _assert_close(lm.prefill([prompts[i] for i in order]).hidden, alone[order])


def test_a_branch_is_independent_of_its_neighbours(lm: LanguageModel) -> None:
    """Other tokens in the second branch leave the first as it is, bit by bit."""
    states = lm.prefill([_draw_embeddings(lm, 9)]).fork(2)
    tokens, others = _draw_embeddings(lm, 1, 2, 3, seed=1), _draw_embeddings(lm, 1, 2, 3, seed=2)
    others[:, 0] = tokens[:, 0]
    one, two = (lm.extend(states, x, _make_full_mask(1, 2, 3))[0] for x in (tokens, others))
    assert torch.equal(one.hidden[0, 0], two.hidden[0, 0])
    assert not torch.equal(one.hidden[0, 1], two.hidden[0, 1])


def test_rows_may_be_picked_repeated_and_reordered(lm: LanguageModel) -> None:
    """Rows 2, 0, 2 go on as prompts 2, 0, 2 would."""
    prompts, tokens = _draw_prompts(lm), _draw_embeddings(lm, 3, 1, 4, seed=8)
    picked = lm.prefill(prompts).select_rows(torch.tensor([2, 0, 2]))
    states, _ = lm.extend(picked, tokens, _make_full_mask(3, 1, 4))
    for row, prompt in enumerate([prompts[2], prompts[0], prompts[2]]):
        _assert_close(
            lm.logits(states.hidden)[row, 0], _compute_full_logits(lm, prompt, tokens[row, 0])[-1]
        )


def test_branches_may_be_picked_repeated_and_reordered(lm: LanguageModel) -> None:
    """Each row picks branches of its own, which share the cache and go on from there."""
    prompts, first = _draw_prompts(lm)[:2], _draw_embeddings(lm, 2, 3, 2, seed=1)
    states, _ = lm.extend(lm.prefill(prompts).fork(3), first, _make_full_mask(2, 3, 2))
    index = torch.tensor([[2, 0], [1, 1]])
    picked = states.select_branches(index)
    assert all(
        one is two
        for pair in zip(picked.layers, states.layers, strict=True)
        for one, two in zip(*pair, strict=True)
    )
    second = _draw_embeddings(lm, 2, 2, 3, seed=2)
    longer, _ = lm.extend(picked, second, _make_full_mask(2, 2, 3))
    for row in range(2):
        for branch in range(2):
            path = (prompts[row], first[row, index[row, branch]], second[row, branch])
            _assert_close(
                lm.logits(longer.hidden)[row, branch], _compute_full_logits(lm, *path)[-1]
            )


def test_fork_makes_equal_branches() -> None:
    """The branches of a fork see the same slots and have the same state."""
    lm = tiny_lm()
    states = lm.prefill(_draw_prompts(lm))
    forked = states.fork(5)
    assert forked.visible.shape[:2] == forked.hidden.shape[:2] == (3, 5)
    assert all(torch.equal(forked.hidden[:, i], states.hidden[:, 0]) for i in range(5))
    assert all(torch.equal(forked.visible[:, i], states.visible[:, 0]) for i in range(5))


def test_extending_leaves_the_given_states_alone(lm: LanguageModel) -> None:
    """The states that were extended can be extended again, with the same result."""
    states = lm.prefill(_draw_prompts(lm))
    kept = PrefixStates(
        tuple((k.clone(), v.clone()) for k, v in states.layers),
        states.visible.clone(),
        states.hidden.clone(),
    )
    tokens = _draw_embeddings(lm, 3, 1, 4, seed=1)
    one, two = (lm.extend(states, tokens, _make_full_mask(3, 1, 4))[0] for _ in range(2))
    assert torch.equal(one.hidden, two.hidden)
    assert torch.equal(states.hidden, kept.hidden)
    assert torch.equal(states.visible, kept.visible)
    for (k, v), (kept_k, kept_v) in zip(states.layers, kept.layers, strict=True):
        assert torch.equal(k, kept_k)
        assert torch.equal(v, kept_v)


def test_the_window_can_be_filled_but_not_exceeded(lm: LanguageModel) -> None:
    """The last position of the model is usable. One more token is an error that counts the tokens."""
    states = lm.prefill([_draw_embeddings(lm, MAX_LENGTH - 1)])
    token = _draw_embeddings(lm, 1, 1, 1)
    full, _ = lm.extend(states, token, _make_full_mask(1, 1, 1))
    assert full.lengths.tolist() == [[MAX_LENGTH]]
    with pytest.raises(
        InputError, match="expected at most 512 tokens of question, context and answer, found 513"
    ):
        lm.extend(full, token, _make_full_mask(1, 1, 1))


def test_padding_does_not_count_towards_the_window() -> None:
    """A row may be shorter than its padding makes it."""
    lm = tiny_lm()
    values, mask = pad([_draw_embeddings(lm, MAX_LENGTH), _draw_embeddings(lm, 2)])
    states, _ = lm.extend(lm.empty_states(2), values[:, None], mask[:, None])
    states, _ = lm.extend(
        states.select_rows(torch.tensor([1])),
        _draw_embeddings(lm, 1, 1, 3),
        _make_full_mask(1, 1, 3),
    )
    assert states.lengths.tolist() == [[5]]


def test_pad_stacks_rows_and_marks_what_is_real() -> None:
    """Values are filled with zeros at the end, also in an empty row."""
    values, mask = pad(
        [torch.tensor([1, 2]), torch.tensor([], dtype=torch.long), torch.tensor([3])]
    )
    assert values.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]


def test_branches_become_rows_that_hold_what_they_see_alone(lm: LanguageModel) -> None:
    """Branches of different lengths, a branch twice, and one left out: each continues as it would in its own row."""
    prompts, tokens = _draw_prompts(lm)[:2], _draw_embeddings(lm, 2, 3, 2, seed=1)
    mask = torch.tensor([[[1, 1], [1, 0], [0, 0]], [[1, 1], [1, 1], [1, 0]]], dtype=torch.bool)
    states, _ = lm.extend(lm.prefill(prompts).fork(3), tokens, mask)
    branches = [(1, 2), (0, 1), (0, 2), (1, 2)]
    rows = states.split_into_rows(torch.tensor(branches))
    assert rows.lengths[:, 0].tolist() == [int(states.lengths[index]) for index in branches]
    assert rows.visible.shape[-1] == int(rows.lengths.max())
    after = _draw_embeddings(lm, 4, 1, 3, seed=2)
    longer, _ = lm.extend(rows, after, _make_full_mask(4, 1, 3))
    for i, (row, branch) in enumerate(branches):
        expected = _compute_full_logits(
            lm, prompts[row], tokens[row, branch, mask[row, branch]], after[i, 0]
        )[-1]
        _assert_close(lm.logits(longer.hidden)[i, 0], expected)
