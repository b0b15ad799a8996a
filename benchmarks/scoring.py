"""The throughput of `SelfEvaluator.score` against the bare forward pass of the same tokens.

Run: `python benchmarks/scoring.py [--data squad_dev.jsonl]`. The bare pass runs only the layers, one sequence after
another and therefore without padding: `[θp ; x ; ŷ ; θs]` of every exchange, no logits, no cache. Prints its time over
ours, as min / median / max. The aim is at least 0.85.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pairs import divide, parse_settings, print_comparison, time_in_turn

from aspire_guard import Exchange, SelfEvaluator
from aspire_trainers.record import QARecord


def embed_exchange(evaluator: SelfEvaluator, exchange: Exchange) -> torch.Tensor:
    """Return `[θp ; x ; ŷ ; θs]` as embeddings `(1, tokens, dim)`."""
    aspire = evaluator.aspire
    lm, template = aspire.lm, aspire.template
    assert aspire.task is not None
    assert aspire.self_eval is not None
    prompt = template.render(exchange.question, exchange.context)
    ids = lm.token_ids(prompt + template.render_answer(exchange.answer))
    vectors = [aspire.task.vectors(lm), lm.embed(ids), aspire.self_eval.vectors(lm)]
    return torch.cat(vectors)[None]


def compare(evaluator: SelfEvaluator, records: Sequence[QARecord], name: str, pairs: int) -> None:
    """Score the references of `records`, and run the bare layers over the same tokens."""
    exchanges = []
    for record in records:
        exchanges.append(
            Exchange(question=record.question, context=record.context, answer=record.references[0])
        )
    rows = [embed_exchange(evaluator, exchange) for exchange in exchanges]

    def score() -> None:
        evaluator.score(exchanges)

    def run_bare_layers() -> None:
        for row in rows:
            evaluator.aspire.lm.model.base_model(inputs_embeds=row, use_cache=False)

    our_seconds, bare_seconds = time_in_turn(score, run_bare_layers, pairs)
    tokens = sum(row.shape[1] for row in rows)
    name = f"{len(rows)} exchanges of {tokens} tokens, {name}"
    ratios = divide(bare_seconds, our_seconds)
    print_comparison(name, our_seconds, bare_seconds, ratios, "at least 0.85")


@torch.inference_mode()
def main() -> None:
    """Print a line for passages with one question each, and a line for passages with several questions."""
    settings = parse_settings(__doc__, records=12, pairs=5)
    evaluator = SelfEvaluator.starter()
    compare(evaluator, settings.one_per_passage, "a passage each", settings.pairs)
    compare(evaluator, settings.records, "passages shared", settings.pairs)


if __name__ == "__main__":
    main()
