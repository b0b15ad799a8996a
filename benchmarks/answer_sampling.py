"""Answer sampling against `transformers.generate`: the ten best beams of each question.

Run: `python benchmarks/answer_sampling.py [--data squad_dev.jsonl]`. Both decode the same prompts, under the starter's
θp, in the same batches of eight questions, and the beams are compared. Prints how many times faster our sampling is, as
min / median / max. The aim is at least 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pairs import divide, parse_settings, print_comparison, time_in_turn

from aspire_guard import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import pad
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.record import QARecord
from aspire_trainers.stages.answer_sampling import decode_records

_BATCH_SIZE, _BEAMS, _MAX_NEW_TOKENS = 8, 10, 20


def embed_prompt(aspire: AspireLM, record: QARecord) -> torch.Tensor:
    """Return `[θp ; x]` as embeddings `(tokens, dim)`."""
    assert aspire.task is not None
    context = aspire.template.render_context(record.context)
    question = aspire.template.render_question(record.question)
    ids = torch.cat(
        [aspire.lm.start_ids, aspire.lm.token_ids(context), aspire.lm.token_ids(question)]
    )
    return torch.cat([aspire.task.vectors(aspire.lm), aspire.lm.embed(ids)])


def generate_answers(aspire: AspireLM, prompts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Decode with `generate`, the reference, and return tokens `(prompts · beams, tokens)`."""
    # `generate` wants padding on the left, and `pad` pads on the right.
    reversed_rows, reversed_mask = pad([prompt.flip(0) for prompt in prompts])
    tokens: torch.Tensor = aspire.lm.model.generate(
        inputs_embeds=reversed_rows.flip(1),
        attention_mask=reversed_mask.flip(1).long(),
        num_beams=_BEAMS,
        num_return_sequences=_BEAMS,
        max_new_tokens=_MAX_NEW_TOKENS,
        do_sample=False,
        early_stopping=True,
        pad_token_id=aspire.lm.tokenizer.eos_token_id,
    )
    return tokens


def sample_answers(aspire: AspireLM, batch: Sequence[QARecord]) -> torch.Tensor:
    """Decode with our sampling, and return tokens `(prompts, beams, tokens)`."""
    beams = decode_records(aspire, batch, k=_BEAMS, max_new_tokens=_MAX_NEW_TOKENS)[1]
    return beams.tokens


def pad_to_longest(tokens: torch.Tensor, end_id: int) -> torch.Tensor:
    """Pad tokens `(rows, tokens)` to `_MAX_NEW_TOKENS`."""
    missing = _MAX_NEW_TOKENS - tokens.shape[-1]
    return torch.nn.functional.pad(tokens, (0, missing), value=end_id)


@torch.inference_mode()
def main() -> None:
    """Time both, and print how many of their beams are equal."""
    settings = parse_settings(__doc__, records=8, pairs=5)
    aspire = SelfEvaluator.starter().aspire
    batches = group_by_context(settings.records, _BATCH_SIZE, seed=0)
    prompts = []
    for batch in batches:
        prompts.append([embed_prompt(aspire, record) for record in batch])
    beams: dict[str, list[torch.Tensor]] = {}

    def ours() -> None:
        beams["ours"] = [sample_answers(aspire, batch) for batch in batches]

    def reference() -> None:
        beams["reference"] = [generate_answers(aspire, rows) for rows in prompts]

    our_seconds, reference_seconds = time_in_turn(ours, reference, settings.pairs)
    speedups = divide(reference_seconds, our_seconds)
    name = f"{len(settings.records)} questions"
    print_comparison(name, our_seconds, reference_seconds, speedups, "at least 4")

    same = total = 0
    for our_tokens, reference_tokens in zip(beams["ours"], beams["reference"], strict=True):
        our_rows = pad_to_longest(our_tokens.flatten(0, -2), aspire.lm.end_id)
        reference_rows = pad_to_longest(reference_tokens, aspire.lm.end_id)
        equal = (our_rows == reference_rows).all(-1)  # (prompts · beams,)
        same += int(equal.sum())
        total += len(equal)
    print(f"the same beams: {same} of {total}")


if __name__ == "__main__":
    main()
