"""Models whose layers have windows, and models with biases for distances, at three times the window.

Everything is compared with plain passes: each text is run alone and at once, by the attention that `transformers`
writes out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from aspire_guard.lm.answer_reading import read_answers
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.beam_search import beam_search
from aspire_guard.lm.incremental_scorer import IncrementalScorer
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.sampling import sample_continuations
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.testing import tiny_lm

WINDOW = 16
# Three times the window, and a little more.
LONG = 3 * WINDOW + 5

_SMALL: dict[str, Any] = {
    "vocab_size": len(tiny_lm().tokenizer),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SLIDING = {**_SMALL, "sliding_window": WINDOW, "head_dim": 8}
_MIXED = {**_SLIDING, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "mlp_layer_types": ["dense", "sparse"],
}

# The windows of all layers are alike.
_EQUAL_LAYERS: dict[str, dict[str, Any]] = {
    "ministral3": _SLIDING,
    "mistral": _SLIDING,
    "mixtral": {**_SLIDING, **_EXPERTS},
    "phi3": _SLIDING,
    "phimoe": {**_SLIDING, **_EXPERTS},
    "qwen3_moe": {**_SLIDING, **_EXPERTS, "use_sliding_window": True},
    "starcoder2": _SLIDING,
}
# One layer has a window, and the other one sees everything.
_MIXED_LAYERS: dict[str, dict[str, Any]] = {
    "afmoe": {**_MIXED, **_EXPERTS, "num_dense_layers": 1},
    "beam": {**_MIXED, **_EXPERTS},
    "cohere2": _MIXED,
    "cohere2_moe": {**_MIXED, **_EXPERTS},
    "cwm": _MIXED,
    "exaone4": _MIXED,
    "exaone_moe": {**_MIXED, **_EXPERTS},
    "flint": {**_MIXED, **_EXPERTS},
    "gemma2": {**_MIXED, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_MIXED, "query_pre_attn_scalar": 8},
    "gemma4_text": {**_MIXED, "global_head_dim": 8, "hidden_size_per_layer_input": 0},
    "gpt_oss": {**_MIXED, **_EXPERTS},
    "granite_swa": _MIXED,
    "granitemoe_swa": {**_MIXED, **_EXPERTS},
    "kolibri1": {**_MIXED, **_EXPERTS},
    "laguna": {**_MIXED, **_EXPERTS},
    "mellum": {**_MIXED, **_EXPERTS},
    "mimo_v2_flash": {**_MIXED, **_EXPERTS},
    "ministral": _MIXED,
    "olmo3": _MIXED,
    "qwen2": {**_MIXED, "use_sliding_window": True},
    "qwen2_moe": {**_MIXED, **_EXPERTS, "use_sliding_window": True},
    "qwen3": {**_MIXED, "use_sliding_window": True},
    "smollm3": {**_MIXED, "use_sliding_window": True},
    "vaultgemma": {**_MIXED, "query_pre_attn_scalar": 8},
    "llama4_text": {
        **_MIXED,
        **_EXPERTS,
        "intermediate_size_mlp": 48,
        "attention_chunk_size": WINDOW,
        "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0],
    },
}
# They count the slots of their cache: by a bias for distances, or for windows that they cut themselves.
_COUNTING: dict[str, dict[str, Any]] = {
    "bloom": {**_SMALL, "n_layer": 2, "n_head": 4},
    "falcon": {**_SMALL, "alibi": True},
    "gpt_neo": {
        **_SMALL,
        "num_layers": 2,
        "num_heads": 4,
        "window_size": WINDOW,
        "attention_types": [[["local", "global"], 1]],
    },
    "mpt": {**_SMALL, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
}

_CONFIGS = {**_EQUAL_LAYERS, **_MIXED_LAYERS, **_COUNTING}
# Those that the installed transformers has.
FAMILIES = sorted(_CONFIGS.keys() & set(CONFIG_MAPPING.keys()))
# A family for each way in which tokens are kept from seeing each other, and for each attention.
WAYS = ["mistral", "gemma2", "gemma3_text", "gpt_oss", "llama4_text", "bloom", "gpt_neo"]


LENGTHS = (LONG, 7, WINDOW, 2 * WINDOW + 1)


@dataclass(frozen=True)
class PlainModel:
    """A model that is only ever run on a whole text at once, by the attention that `transformers` writes out.

    Attributes:
        model: a copy of the model.
    """

    model: Any

    def logits(self, *parts: Tensor) -> Tensor:
        """Return the logits `(tokens, vocabulary)` after embeddings `(tokens, dim)` one after the other."""
        embeddings = torch.cat(parts)[None]
        logits: Tensor = self.model(inputs_embeds=embeddings, use_cache=False).logits
        return logits[0]

    def log_p(self, *parts: Tensor) -> Tensor:
        """Return the log-probabilities of the next token, likewise."""
        return self.logits(*parts).log_softmax(-1)


Models = tuple[LanguageModel, PlainModel]


@pytest.fixture(scope="module", params=FAMILIES)
def models(request: pytest.FixtureRequest) -> Models:
    """Return a tiny model of each family, and its copy for plain passes."""
    return _make_models(request.param)


def test_the_text_alone(models: Models) -> None:
    """A text that is read in one pass has the states of a plain pass."""
    lm, plain = models
    text = _draw_embeddings(lm, LONG, seed=0)
    mask = torch.ones(1, 1, LONG, dtype=torch.bool)
    _, hidden = lm.extend(lm.empty_states(1), text[None, None], mask)
    _assert_predicts(lm, hidden[0, 0], plain.logits(text))


def test_in_a_batch_with_unequal_padding(models: Models) -> None:
    """The lengths of its neighbours, and where its padding stands, don't matter to a text."""
    lm, plain = models
    prompts = _draw_prompts(lm)
    values, mask = pad(prompts)
    # The padding stands to the left of every second text.
    values[1::2], mask[1::2] = values[1::2].flip(1), mask[1::2].flip(1)
    states, _ = lm.extend(lm.empty_states(len(prompts)), values[:, None], mask[:, None])
    tails = [[_draw_embeddings(lm, length, seed=9)] for length in (3, LONG, WINDOW, 1)]
    longer = lm.extend_branches(states, tails)
    for row, prompt in enumerate(prompts):
        text = prompt.flip(0) if row % 2 else prompt
        _assert_predicts(lm, states.hidden[row, 0], plain.logits(text)[-1])
        _assert_predicts(lm, longer.hidden[row, 0], plain.logits(text, tails[row][0])[-1])


def test_branched(models: Models) -> None:
    """Each branch sees its own path alone, as far back as the windows let it."""
    lm, plain = models
    prompts = _draw_prompts(lm)
    answers = [[_draw_embeddings(lm, n, seed=n) for n in (20, 3, WINDOW + 9)]] * len(prompts)
    endings = [[_draw_embeddings(lm, n, seed=n) for n in (2, WINDOW + 2)]] * len(prompts)
    states = lm.prefill(prompts).fork(3)
    states = lm.extend_branches(states, answers)
    last = lm.read_after_branches(states, endings)
    for row, prompt in enumerate(prompts):
        for branch, answer in enumerate(answers[row]):
            expected = plain.logits(prompt, answer)[-1]
            _assert_predicts(lm, states.hidden[row, branch], expected)
        for branch, ending in enumerate(endings[row]):
            expected = plain.logits(prompt, answers[row][branch], ending)[-1]
            _assert_predicts(lm, last[row, branch], expected)


def test_continued_piece_by_piece(models: Models) -> None:
    """A text that is read in pieces, shorter and longer than the window, has the states of one pass."""
    lm, plain = models
    text = _draw_embeddings(lm, 2 * LONG, seed=0)
    expected = plain.logits(text)
    states = lm.empty_states(1)
    start = 0
    lengths = [5, 1, WINDOW, 3, 1, WINDOW + 8, 2 * LONG - 2 * WINDOW - 18]
    for piece in torch.split(text, lengths):
        mask = torch.ones(1, 1, len(piece), dtype=torch.bool)
        states, hidden = lm.extend(states, piece[None, None], mask)
        _assert_predicts(lm, hidden[0, 0], expected[start : start + len(piece)])
        start += len(piece)


# The tokenizer's tokens are bytes, so the prompt alone is longer than three windows.
CONTEXT = "Ada keeps the key of the archive. Bob has a copy of it."
EXCHANGES = [
    ("Who keeps it?", CONTEXT, "Ada keeps it. It is a key."),
    ("Who has a copy?", CONTEXT, "Bob."),
    ("Who keeps it?", CONTEXT, "Nobody knows who has it."),
    ("Who?", None, "Ada."),
]


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Models:
    """Return a tiny model for each way in which tokens are kept from seeing each other, and its copy."""
    return _make_models(request.param)


def test_answers_to_several_questions_on_one_context(way: Models) -> None:
    """Likelihood and verdict are those of plain passes over prompt, answer and θs."""
    lm, plain = way
    aspire = _make_aspire(lm)
    log_likelihoods, log_p_correct = aspire.score(EXCHANGES)
    for row, (question, context, answer) in enumerate(EXCHANGES):
        prompt = _embed_prompt(aspire, question, context)
        ids = aspire.answer_ids(answer)
        assert float(log_likelihoods[row]) == pytest.approx(
            _compute_likelihood(lm, plain, prompt, ids), abs=1e-4
        )
        assert float(log_p_correct[row]) == pytest.approx(
            _compute_log_p_correct(aspire, plain, prompt, ids), abs=1e-4
        )


def test_beams_and_samples_have_the_likelihood_of_their_tokens(way: Models) -> None:
    """So do the states that the beams leave behind: a verdict on them is that of a plain pass."""
    lm, plain = way
    aspire = _make_aspire(lm)
    prompts = [(question, context) for question, context, _ in EXCHANGES]
    with torch.inference_mode():
        states = aspire.prompt_states(prompts)
        beams = beam_search(lm, states, k=3, max_new_tokens=WINDOW + 4)
        samples = sample_continuations(
            lm, states, n=2, max_new_tokens=WINDOW + 4, temperature=1.0, seeds=["a", "b", "c", "d"]
        )
        verdicts = aspire.verdict_logits(beams.states, [[("", "")] * 3] * len(prompts))
    log_p_correct = verdicts.log_softmax(-1)[:, 0].view(len(prompts), 3)
    for row, prompt in enumerate(prompts):
        embeddings = _embed_prompt(aspire, *prompt)
        for decoded in (beams, samples):
            for tokens, length, found in zip(
                decoded.tokens[row], decoded.lengths[row], decoded.log_likelihoods[row], strict=True
            ):
                ids = tokens[:length]
                ids = ids[ids != lm.end_id]
                expected = _compute_likelihood(lm, plain, embeddings, ids)
                assert float(found) == pytest.approx(expected, abs=1e-4)
        best = beams.tokens[row, 0, : beams.lengths[row, 0]]
        expected = _compute_log_p_correct(aspire, plain, embeddings, best[best != lm.end_id])
        assert float(log_p_correct[row, 0]) == pytest.approx(expected, abs=1e-4)


def test_an_answer_that_grows(way: Models) -> None:
    """A stream is scored as the finished answer is, at each of its ends."""
    lm, plain = way
    aspire = _make_aspire(lm)
    scorer = IncrementalScorer(aspire, "Who keeps it?", CONTEXT, compare=True)
    prompt = _embed_prompt(aspire, "Who keeps it?", CONTEXT)
    text = ""
    for part in ("Ada ke", "eps it.", " It is a key", ", and Bob has no key."):
        text += part
        found = scorer.extend(part)
        (finished,) = read_answers(aspire, [("Who keeps it?", CONTEXT, text)])
        ids = aspire.answer_ids(text)
        expected = _compute_log_p_correct(aspire, plain, prompt, ids)
        assert found.log_p_correct == pytest.approx(expected, abs=1e-4)
        assert finished.log_p_correct == pytest.approx(expected, abs=1e-4)
        expected = _compute_likelihood(lm, plain, prompt, ids)
        assert found.log_likelihood == pytest.approx(expected, abs=1e-4)
        assert finished.log_likelihood == pytest.approx(expected, abs=1e-4)


def test_gradients_are_those_of_plain_passes(way: Models) -> None:
    """Training reads in the same way: the vectors before a prompt learn from answers on branches."""
    lm, plain = way
    vectors = _draw_embeddings(lm, 4, seed=1).clone().requires_grad_()
    prompt = _draw_embeddings(lm, LONG, seed=2)
    answers = [_draw_embeddings(lm, length, seed=length) for length in (3, WINDOW + 5)]
    states = lm.prefill([torch.cat([vectors, prompt])]).fork(2)
    hidden = lm.extend_branches(states, [answers]).hidden[0]
    (found,) = torch.autograd.grad(lm.logits(hidden).log_softmax(-1)[:, 5].sum(), vectors)
    log_p = [plain.log_p(vectors, prompt, answer)[-1, 5] for answer in answers]
    (expected,) = torch.autograd.grad(torch.stack(log_p).sum(), vectors)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", ["gpt_neo", "mpt", "mistral"])
def test_branches_that_only_fit_one_by_one(family: str) -> None:
    """A long prefix with a short answer, a short one with a long answer, and a full one that gets no token."""
    limit = 3 * WINDOW
    lm, plain = _make_models(
        family, {"max_position_embeddings": limit, "max_seq_len": limit, "window_size": 9}
    )
    prompts = [_draw_embeddings(lm, length, seed=length) for length in (limit - 2, 3, limit)]
    answers = [[_draw_embeddings(lm, length, seed=length)] for length in (2, limit - 3, 0)]
    with torch.inference_mode():
        states = lm.prefill(prompts)
        longer = lm.extend_branches(states, answers)
        assert lm.max_length == limit
        for row in range(2):
            expected = plain.logits(prompts[row], answers[row][0])[-1]
            _assert_predicts(lm, longer.hidden[row, 0], expected)
    assert torch.equal(longer.hidden[2], states.hidden[2])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "llama4_text", "falcon"])
def test_any_attention_keeps_to_the_windows(family: str, attention: str) -> None:
    """A model runs by an attention of `transformers` on a GPU, or if it can't run by ours."""
    models = _make_models(family)
    models[0].model.set_attn_implementation(attention)
    with torch.inference_mode():
        test_in_a_batch_with_unequal_padding(models)
        test_branched(models)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "llama4_text"])
def test_the_windows_of_these_models_matter(family: str) -> None:
    """With a window as long as the text a model predicts something else, so that the tests above say something."""
    lm, plain = _make_models(family)
    wide = {"sliding_window": 4 * WINDOW, "attention_chunk_size": 4 * WINDOW}
    _, other = _make_models(family, wide)
    text = _draw_embeddings(lm, LONG, seed=0)
    assert (plain.log_p(text)[-1] - other.log_p(text)[-1]).abs().max() > 0.1
    # A text that fits into the window is read in full by both.
    assert torch.allclose(plain.log_p(text[:WINDOW]), other.log_p(text[:WINDOW]), atol=1e-4)


def _assert_predicts(lm: LanguageModel, hidden: Tensor, expected: Tensor) -> None:
    """Check that hidden states `(…, hidden)` predict the next token as plain passes do, `(…, vocabulary)`."""
    found = lm.logits(hidden).log_softmax(-1)
    torch.testing.assert_close(found, expected.log_softmax(-1), atol=1e-4, rtol=0)


def _draw_prompts(lm: LanguageModel) -> list[Tensor]:
    return [_draw_embeddings(lm, length, seed=length) for length in LENGTHS]


def _make_models(
    family: str, settings: Mapping[str, Any] | None = None
) -> tuple[LanguageModel, PlainModel]:
    """Make a tiny model with random weights, and its copy for plain passes.

    Args:
        family: a name in `FAMILIES`.
        settings: settings to change in its config.
    """
    config = CONFIG_MAPPING[family](**{**_CONFIGS[family], **(settings or {})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    plain.set_attn_implementation("eager")
    return LanguageModel(model, tiny_lm().tokenizer), PlainModel(plain)


def _draw_embeddings(lm: LanguageModel, length: int, seed: int) -> Tensor:
    """Return the embeddings `(length, dim)` of random tokens."""
    chance = torch.Generator().manual_seed(seed)
    return lm.embed(torch.randint(3, 250, (length,), generator=chance))


def _make_aspire(lm: LanguageModel) -> AspireLM:
    """Put random vectors before the prompt and after the answer."""
    task = SoftPrompt(_draw_embeddings(lm, 4, seed=3)).requires_grad_(False)
    self_eval = SoftPrompt(_draw_embeddings(lm, 3, seed=4)).requires_grad_(False)
    return AspireLM(lm, task=task, self_eval=self_eval)


def _embed_prompt(aspire: AspireLM, question: str, context: str | None) -> Tensor:
    """Return the embeddings `(tokens, dim)` of `[θp ; x]`."""
    reader = aspire.reader
    ids = torch.cat([reader.context_ids(context), reader.question_ids(question)])
    return torch.cat([reader.before, aspire.lm.embed(ids)])


def _compute_likelihood(lm: LanguageModel, plain: PlainModel, prompt: Tensor, ids: Tensor) -> float:
    """Compute log f_norm of the tokens `ids` and an end token by a plain pass."""
    log_p = plain.log_p(prompt, lm.embed(ids))[len(prompt) - 1 :]
    targets = torch.cat([ids, torch.tensor([lm.end_id])])
    return float(log_p.gather(-1, targets[:, None]).mean())


def _compute_log_p_correct(
    aspire: AspireLM, plain: PlainModel, prompt: Tensor, ids: Tensor
) -> float:
    """Compute log P(z_c) after the tokens `ids` by a plain pass."""
    assert isinstance(aspire.self_eval, SoftPrompt)
    logits = plain.logits(prompt, aspire.lm.embed(ids), aspire.self_eval.weight)[-1]
    return float(logits[aspire.word_ids()].log_softmax(-1)[0])
