"""Answer sampling against `transformers.generate`: the ten best beams of each question.

Run: `python benchmarks/answer_sampling.py [--data squad_dev.jsonl]`. Both decode the same prompts, under the starter's
θp, in the same batches of eight questions, and the beams are compared. Prints how many times faster ours is, as
min / median / max; 4 is the least we want.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pairs import in_turn, settings, show

from aspire_guard import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import pad
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.record import QARecord
from aspire_trainers.stages.answer_sampling import decode_records

_BATCH_SIZE, _BEAMS, _MAX_NEW_TOKENS = 8, 10, 20


def generate(aspire: AspireLM, prompts: Sequence[torch.Tensor]) -> Any:
    """The reference: `generate` on the same embeddings, padded on the left as it wants them."""
    reversed_rows, reversed_mask = pad([prompt.flip(0) for prompt in prompts])
    return aspire.lm.model.generate(
        inputs_embeds=reversed_rows.flip(1),
        attention_mask=reversed_mask.flip(1).long(),
        num_beams=_BEAMS,
        num_return_sequences=_BEAMS,
        max_new_tokens=_MAX_NEW_TOKENS,
        do_sample=False,
        early_stopping=True,
        pad_token_id=aspire.lm.tokenizer.eos_token_id,
    )


def embedded(aspire: AspireLM, record: QARecord) -> torch.Tensor:
    """`[θp ; x]` as embeddings `(tokens, dim)`."""
    assert aspire.task is not None
    context, question = (
        aspire.template.render_context(record.context),
        aspire.template.render_question(record.question),
    )
    ids = torch.cat(
        [aspire.lm.start_ids, aspire.lm.token_ids(context), aspire.lm.token_ids(question)]
    )
    return torch.cat([aspire.task.vectors(aspire.lm), aspire.lm.embed(ids)])


def _padded(sequences: torch.Tensor, end: int) -> torch.Tensor:
    """All as long as they may be."""
    return torch.nn.functional.pad(sequences, (0, _MAX_NEW_TOKENS - sequences.shape[-1]), value=end)


@torch.inference_mode()
def main() -> None:
    """Print one line."""
    told = settings(__doc__, records=8, pairs=5)
    aspire = SelfEvaluator.starter().aspire
    batches = group_by_context(told.records, _BATCH_SIZE, seed=0)
    prompts = [[embedded(aspire, record) for record in batch] for batch in batches]
    found: dict[str, list[Any]] = {}

    def ours() -> None:
        found["ours"] = [
            decode_records(aspire, b, k=_BEAMS, max_new_tokens=_MAX_NEW_TOKENS)[1].tokens
            for b in batches
        ]

    def reference() -> None:
        found["reference"] = [generate(aspire, rows) for rows in prompts]

    own, other = in_turn(ours, reference, told.pairs)
    same = total = 0
    for beams, sequences in zip(found["ours"], found["reference"], strict=True):
        mine, theirs = (
            _padded(rows.flatten(0, -2), aspire.lm.end_id) for rows in (beams, sequences)
        )
        equal = (mine == theirs).all(-1)
        same, total = same + int(equal.sum()), total + len(equal)
    show(
        f"{len(told.records)} questions",
        own,
        other,
        [b / a for a, b in zip(own, other, strict=True)],
        "at least 4",
    )
    print(f"the same beams: {same} of {total}")


if __name__ == "__main__":
    main()
