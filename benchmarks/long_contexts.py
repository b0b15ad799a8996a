"""The cost of a verdict over a long context, against the bare forward pass over the same tokens.

Run: `python benchmarks/long_contexts.py [--for-chains] [--tokens 256 1000 4000 8000] [--pairs 3]`. With `--for-chains`
the starter for chains is measured, which also reads the answer after the question alone. The bare pass is
that of `transformers` with its own fused attention ("sdpa") over `[θp ; x ; ŷ ; θs]`: the layers
as they run by default, with a cache and without logits. Each length prints the bare time over ours as min / median
/ max (0.85 is the least we want). At the longest context a process of its own measures what either
side adds to the peak of its memory (at most 1.5 × is wanted).
"""

from __future__ import annotations

import copy
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import torch
from pairs import divide, print_comparison, time_in_turn

from aspire_guard import Exchange, SelfEvaluator
from aspire_trainers.data.handbook import load_passages

QUESTION = "Which yard built MV Petrel?"
ANSWER = "Harrow & Lund built MV Petrel."


def make_exchange(evaluator: SelfEvaluator, tokens: int) -> Exchange:
    """Fill a context with passages of the handbook until the whole prompt has about `tokens` tokens."""
    lm = evaluator.aspire.lm
    words = chain.from_iterable(passage.text.split() for passage in cycle(load_passages()))
    empty = Exchange(question=QUESTION, context=".", answer=ANSWER)
    room = tokens - len(make_row(evaluator, empty))
    text = " ".join(next(words) for _ in range(tokens))
    ids = lm.token_ids(text)[:room]
    context = lm.tokenizer.decode(ids)
    return Exchange(question=QUESTION, context=context, answer=ANSWER)


def make_row(evaluator: SelfEvaluator, exchange: Exchange) -> torch.Tensor:
    """Return the embeddings `(tokens, dim)` of `[θp ; x ; ŷ ; θs]`."""
    aspire = evaluator.aspire
    assert aspire.task is not None
    assert aspire.self_eval is not None
    prompt = aspire.template.render(exchange.question, exchange.context)
    ids = aspire.lm.token_ids(prompt + aspire.template.render_answer(exchange.answer))
    before = aspire.task.vectors(aspire.lm)
    after = aspire.self_eval.vectors(aspire.lm, exchange.question, exchange.answer)
    return torch.cat([before, aspire.lm.embed(ids), after])


def make_bare_pass(evaluator: SelfEvaluator, exchange: Exchange) -> Callable[[], Any]:
    """Return the layers of `transformers` over the same tokens, with the same weights."""
    model = evaluator.aspire.lm.model
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    bare = copy.deepcopy(model, shared)
    bare.set_attn_implementation("sdpa")
    row = make_row(evaluator, exchange)[None]
    return lambda: bare.base_model(inputs_embeds=row)


def load_evaluator(*, for_chains: bool) -> SelfEvaluator:
    """Load one of the two starters."""
    return SelfEvaluator.for_chains() if for_chains else SelfEvaluator.starter()


def measure_peak(side: str, tokens: int, *, for_chains: bool) -> int:
    """Run one side in this process; return the MiB that it adds to the peak of the memory."""
    evaluator = load_evaluator(for_chains=for_chains)
    exchange = make_exchange(evaluator, tokens)
    short = make_exchange(evaluator, 256)
    call = make_bare_pass(evaluator, exchange)
    evaluator.score([short])
    # Loading the model has a peak of its own: Linux forgets it at this command.
    Path("/proc/self/clear_refs").write_text("5")
    before = read_peak()
    if side == "ours":
        evaluator.score([exchange])
    else:
        call()
    return read_peak() - before


def read_peak() -> int:
    """Return the peak of this process's memory in MiB, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


@torch.inference_mode()
def main() -> None:
    """Print a line for each length, and the memory at the longest."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1000, 4000, 8000])
    parser.add_argument("--pairs", type=int, default=3, help="how often both sides run")
    parser.add_argument("--peak", choices=["ours", "bare"], help="measure one side's memory only")
    parser.add_argument("--for-chains", action="store_true", help="measure the starter for chains")
    arguments = parser.parse_args()
    longest = max(arguments.tokens)
    if arguments.peak:
        print(measure_peak(arguments.peak, longest, for_chains=arguments.for_chains))
        return
    evaluator = load_evaluator(for_chains=arguments.for_chains)
    for tokens in arguments.tokens:
        exchange = make_exchange(evaluator, tokens)
        bare = make_bare_pass(evaluator, exchange)
        ours, reference = time_in_turn(partial(evaluator.score, [exchange]), bare, arguments.pairs)
        ratios = divide(reference, ours)
        name = f"{len(make_row(evaluator, exchange)):,} tokens"
        print_comparison(name, ours, reference, ratios, "at least 0.85")
    peaks = {}
    for side in ("ours", "bare"):
        command = [sys.executable, __file__, "--peak", side, "--tokens", str(longest)]
        if arguments.for_chains:
            command.append("--for-chains")
        peaks[side] = int(subprocess.run(command, capture_output=True, check=True).stdout)
    ratio = peaks["ours"] / peaks["bare"]
    print(
        f"peak memory at {longest:,} tokens: {peaks['ours']:,} MiB, "
        f"bare {peaks['bare']:,} MiB; {ratio:.2f} (wanted: at most 1.5)"
    )


if __name__ == "__main__":
    main()
