"""The throughput of `SelfEvaluator.score` against the bare forward pass of the same tokens.

Run: `python benchmarks/scoring.py [--data squad_dev.jsonl]`. The bare pass runs the layers alone, one sequence after
another and so without padding: `[θp ; x ; ŷ ; θs]` of every exchange, no logits, no cache. Prints its time over ours,
as min / median / max: 0.85 is the least we want.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pairs import in_turn, settings, show

from aspire_guard import Exchange, SelfEvaluator
from aspire_trainers.record import QARecord


def compare(evaluator: SelfEvaluator, records: Sequence[QARecord], name: str, pairs: int) -> None:
    """Score the references of `records`, and run the bare layers over the same tokens."""
    aspire = evaluator.aspire
    lm, template = aspire.lm, aspire.template
    assert aspire.task is not None
    assert aspire.self_eval is not None
    before, after = aspire.task.vectors(lm), aspire.self_eval.vectors(lm)
    exchanges = [
        Exchange(question=r.question, context=r.context, answer=r.references[0]) for r in records
    ]
    rows = []
    for e in exchanges:
        ids = lm.token_ids(
            template.render(e.question, e.context) + template.render_answer(e.answer)
        )
        rows.append(torch.cat([before, lm.embed(ids), after])[None])

    def bare() -> None:
        for row in rows:
            lm.model.base_model(inputs_embeds=row, use_cache=False)

    own, other = in_turn(lambda: evaluator.score(exchanges), bare, pairs)
    name = f"{len(rows)} exchanges of {sum(row.shape[1] for row in rows)} tokens, {name}"
    show(name, own, other, [b / a for a, b in zip(own, other, strict=True)], "at least 0.85")


@torch.inference_mode()
def main() -> None:
    """Print a line for passages that are read once each, and one for passages with several questions."""
    told = settings(__doc__, records=12, pairs=5)
    evaluator = SelfEvaluator.starter()
    compare(evaluator, told.apart, "a passage each", told.pairs)
    compare(evaluator, told.records, "passages shared", told.pairs)


if __name__ == "__main__":
    main()
