"""The time that a guard adds to an answer of `AspireChatModel`, against the answer alone and semantic entropy.

Run: `python benchmarks/guarded_answer.py [--data squad_dev.jsonl]`. The answer alone is the same beam search on the
same prompt, without θs, LangChain or a guard. Both take turns question by question. Semantic entropy draws ten answers
with `transformers.generate` and clusters them by Rouge-L. Prints the added time over the answer's time, and semantic
entropy's time over the added time, as min / median / max.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from pairs import Settings, divide, parse_settings, print_comparison, time_call, time_in_turn

from aspire_guard import AspireGuard, SelfEvaluator
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_integrations import AspireChatModel
from aspire_trainers.correctness import RougeL
from aspire_trainers.record import QARecord

_SAMPLES = 10
_ROUGE = RougeL(0.7)


def sample_texts(evaluator: SelfEvaluator, record: QARecord) -> list[str]:
    """Draw answers to a question under θp with `generate`."""
    aspire = evaluator.aspire
    ids = aspire.lm.token_ids(aspire.template.render(record.question, record.context))
    assert aspire.task is not None
    vectors = torch.cat([aspire.task.vectors(aspire.lm), aspire.lm.embed(ids)])
    prompt = vectors[None]  # (1, tokens, dim)
    sequences = aspire.lm.model.generate(
        inputs_embeds=prompt,
        attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
        do_sample=True,
        num_return_sequences=_SAMPLES,
        max_new_tokens=evaluator.manifest.max_new_tokens,
        pad_token_id=aspire.lm.tokenizer.eos_token_id,
    )
    texts: list[str] = aspire.lm.tokenizer.batch_decode(sequences, skip_special_tokens=True)
    return texts


def cluster(texts: Sequence[str]) -> list[list[str]]:
    """Put each text into the first cluster whose first text is similar by Rouge-L."""
    clusters: list[list[str]] = []
    for text in texts:
        for members in clusters:
            if _ROUGE.score(text, members[:1]) >= _ROUGE.threshold:
                members.append(text)
                break
        else:
            clusters.append([text])
    return clusters


def compute_semantic_entropy(evaluator: SelfEvaluator, record: QARecord) -> float:
    """Return the entropy in nats over clusters of sampled answers, weighted by their frequency."""
    clusters = cluster(sample_texts(evaluator, record))
    shares = [len(members) / _SAMPLES for members in clusters]
    return -sum(share * math.log(share) for share in shares)


def make_kinds(aspire: AspireLM) -> dict[str, tuple[Adapter, str]]:
    """Return θs of each kind, with the share of the answer's time that it may add."""
    assert aspire.self_eval is not None
    text, lm = " Is it right?", aspire.lm
    three_tokens = Lora.from_text(lm, "\nCorrect?", rank=8, seed=0, target_modules="all-linear")
    return {
        "θs of 50 tokens": (SoftPrompt.from_text(lm, text, 50), "at most 0.15"),
        "θs of 20 tokens": (SoftPrompt.from_text(lm, text, 20), "at most 0.08"),
        "θs as a LoRA": (aspire.self_eval, "at most 0.08"),
        "θs as a LoRA on three tokens": (three_tokens, "at most 0.08"),
    }


def time_guard(
    evaluator: SelfEvaluator, starter: SelfEvaluator, settings: Settings
) -> tuple[list[float], list[float]]:
    """Return the seconds of guarded answers to all questions, and of the starter's answers alone, for each pair."""
    model = AspireChatModel(evaluator)
    guard = AspireGuard(model.prompt | model, evaluator=evaluator)

    def answer_guarded(record: QARecord) -> None:
        guard.invoke({"question": record.question, "context": record.context})

    def answer_alone(record: QARecord) -> None:
        states = starter.aspire.prompt_states([(record.question, record.context)])
        starter.aspire.decode(
            states, k=starter.manifest.num_beams, max_new_tokens=starter.manifest.max_new_tokens
        )

    # A copy of the model is slower in its first run.
    answer_guarded(settings.records[0])
    guarded_seconds, alone_seconds = [0.0] * settings.pairs, [0.0] * settings.pairs
    # Turns of a single question are short, and the machine's speed changes little within them.
    for record in settings.records:
        guarded, alone = time_in_turn(
            partial(answer_guarded, record), partial(answer_alone, record), settings.pairs
        )
        for pair in range(settings.pairs):
            guarded_seconds[pair] += guarded[pair]
            alone_seconds[pair] += alone[pair]
    return guarded_seconds, alone_seconds


def main() -> None:
    """Print two lines for each kind of θs."""
    settings = parse_settings(__doc__, records=4, pairs=7)
    starter = SelfEvaluator.starter()

    def compute_entropies() -> None:
        for record in settings.records:
            compute_semantic_entropy(starter, record)

    with torch.inference_mode():
        entropy = time_call(compute_entropies)
    for name, (self_eval, wanted) in make_kinds(starter.aspire).items():
        aspire = replace(starter.aspire, self_eval=self_eval.requires_grad_(False))
        evaluator = SelfEvaluator(aspire, starter.manifest, starter.calibration)
        guarded, alone = time_guard(evaluator, starter, settings)
        added = [both - answer for both, answer in zip(guarded, alone, strict=True)]
        print_comparison(f"{name}, added", added, alone, divide(added, alone), wanted)
        # An added time within the noise of the two other times would make any ratio possible, so it counts as at
        # least a hundredth of the answer's time.
        least_added = [
            max(seconds, answer / 100) for seconds, answer in zip(added, alone, strict=True)
        ]
        ratios = [entropy / seconds for seconds in least_added]
        print_comparison(f"{name}, semantic entropy", added, [entropy], ratios, "at least 10")


if __name__ == "__main__":
    main()
