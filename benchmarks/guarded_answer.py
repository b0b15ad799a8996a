"""What a guard adds to an answer of `AspireChatModel`, against the answer alone and against semantic entropy.

Run: `python benchmarks/guarded_answer.py [--data squad_dev.jsonl]`. The answer alone is the same beam search on the
same prompt, without θs, LangChain or a guard; question by question the two take turns. Semantic entropy draws ten
answers with `transformers.generate` and clusters them by Rouge-L. Prints the added time over the answer's, and semantic
entropy's time over the added time, as min / median / max.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from pairs import in_turn, settings, show

from aspire_guard import AspireGuard, SelfEvaluator
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_integrations import AspireChatModel
from aspire_trainers.correctness import RougeL
from aspire_trainers.record import QARecord

_SAMPLES = 10
_SAME = RougeL(0.7)


def semantic_entropy(evaluator: SelfEvaluator, record: QARecord) -> float:
    """Entropy in nats over clusters of sampled answers, each as likely as it is frequent."""
    aspire = evaluator.aspire
    ids = aspire.lm.token_ids(aspire.template.render(record.question, record.context))
    assert aspire.task is not None
    prompt = torch.cat([aspire.task.vectors(aspire.lm), aspire.lm.embed(ids)])[None]
    sequences = aspire.lm.model.generate(
        inputs_embeds=prompt,
        attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
        do_sample=True,
        num_return_sequences=_SAMPLES,
        max_new_tokens=evaluator.manifest.max_new_tokens,
        pad_token_id=aspire.lm.tokenizer.eos_token_id,
    )
    clusters: list[list[str]] = []
    for text in aspire.lm.tokenizer.batch_decode(sequences, skip_special_tokens=True):
        home = next((c for c in clusters if _SAME.score(text, c[:1]) >= _SAME.threshold), None)
        if home is None:
            clusters.append([text])
        else:
            home.append(text)
    return -sum(len(c) / _SAMPLES * math.log(len(c) / _SAMPLES) for c in clusters)


def main() -> None:
    """Print two lines for each kind of θs."""
    told = settings(__doc__, records=4, pairs=7)
    starter = SelfEvaluator.starter()
    aspire, manifest = starter.aspire, starter.manifest
    assert aspire.self_eval is not None
    kinds: dict[str, tuple[Adapter, str]] = {
        "θs of 50 tokens": (SoftPrompt.from_text(aspire.lm, " Is it right?", 50), "at most 0.15"),
        "θs of 20 tokens": (SoftPrompt.from_text(aspire.lm, " Is it right?", 20), "at most 0.08"),
        "θs as a LoRA": (aspire.self_eval, "at most 0.08"),
        "θs as a LoRA on three tokens": (
            Lora.from_text(aspire.lm, "\nCorrect?", rank=8, seed=0, target_modules="all-linear"),
            "at most 0.08",
        ),
    }

    def alone(record: QARecord) -> None:
        states = aspire.prompt_states([(record.question, record.context)])
        aspire.decode(
            states,
            k=manifest.num_beams,
            max_new_tokens=manifest.max_new_tokens,
        )

    def sampled() -> None:
        for record in told.records:
            semantic_entropy(starter, record)

    with torch.inference_mode():
        _, entropy = in_turn(lambda: None, sampled, 1)
    for name, (self_eval, wanted) in kinds.items():
        evaluator = SelfEvaluator(
            replace(aspire, self_eval=self_eval.requires_grad_(False)),
            manifest,
            starter.calibration,
        )
        model = AspireChatModel(evaluator)
        guard = AspireGuard(model.prompt | model, evaluator=evaluator)

        def guarded(record: QARecord, guard: AspireGuard = guard) -> None:
            guard.invoke({"question": record.question, "context": record.context})

        # A copy of the model is slower in its first run; and in short turns the machine changes little.
        guarded(told.records[0])
        turns = [in_turn(partial(guarded, r), partial(alone, r), told.pairs) for r in told.records]
        own, other = (
            [sum(seconds) for seconds in zip(*side, strict=True)]
            for side in zip(*turns, strict=True)
        )
        added = [a - b for a, b in zip(own, other, strict=True)]
        show(
            f"{name}, added",
            added,
            other,
            [a / b for a, b in zip(added, other, strict=True)],
            wanted,
        )
        # Added time within the noise of the two others would make any ratio: it counts as a hundredth of the answer.
        cheaper = [entropy[0] / max(a, b / 100) for a, b in zip(added, other, strict=True)]
        show(f"{name}, semantic entropy", added, entropy, cheaper, "at least 10")


if __name__ == "__main__":
    main()
