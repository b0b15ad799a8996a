"""A language model with its two adapters: it answers under θp and judges its answers with θs.

Layout: `[θp ; x]` → answer ŷ, and `[θp ; x ; ŷ ; θs]` → z. Since θs comes last, an answer
and its likelihood are the same whether or not θs is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.beam_search import Beams, beam_search
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.prompt_reader import PromptReader, after_branches
from aspire_guard.lm.sampling import Samples, sample_continuations
from aspire_guard.lm.template import (
    PromptTemplate,
    list_markers,
    neutralize_markers,
    truncate_at_marker,
)

# What it costs to copy a slot, counted in slots that one token attends to; measured on a processor with SmolLM2-135M.
_SLOTS_A_COPY = 24


@dataclass(frozen=True)
class Answer:
    """One decoded answer.

    Attributes:
        text: without surrounding white space.
        log_likelihood: mean log-probability of its tokens in nats, the end token included (log f_norm).
        tokens: how many it took, the end token included.
    """

    text: str
    log_likelihood: float
    tokens: int


@dataclass(frozen=True)
class AspireLM:
    """The frozen model θ with its adapters θp (`task`) and θs (`self_eval`), either of which may be absent.

    Args:
        lm: the base model.
        task: θp; without it the base model answers as it is.
        self_eval: θs; without it no answer is judged.
        template: the prompt layout.
        correct: z_c, one token, as it stands or stripped.
        wrong: z_w, likewise.
    """

    lm: LanguageModel
    task: Adapter | None = None
    self_eval: Adapter | None = None
    template: PromptTemplate = field(default_factory=PromptTemplate)
    correct: str = " correct"
    wrong: str = " wrong"

    @property
    def answering(self) -> LanguageModel:
        """The model under θp, which reads the prompt and answers."""
        return self.lm if self.task is None else self.task.adapted(self.lm)

    def on(self, lm: LanguageModel) -> AspireLM:
        """The same adapters over `lm`, the same model in another precision."""
        task, self_eval = (adapter and adapter.on(lm) for adapter in (self.task, self.self_eval))
        return replace(self, lm=lm, task=task, self_eval=self_eval)

    def prompt_states(self, prompts: Sequence[tuple[str, str | None]]) -> PrefixStates:
        """States of `[θp ; x]` for each (question, context); a context that several share is computed once."""
        reader = self._reader
        return reader.read(
            [(context, reader.question_ids(question)) for question, context in prompts]
        )[0]

    def answer_states(
        self, prompts: PrefixStates, answers: Sequence[Sequence[str]]
    ) -> tuple[PrefixStates, Tensor, Tensor]:
        """States of `[θp ; x ; ŷ]` for the answers of each prompt, an equal number each.

        Returns:
            The states with a branch an answer; `(batch, answers)` summed log-probabilities of each answer with its
            end token, in nats; and `(batch, answers)` how many tokens that sum is over.
        """
        branches = len(answers[0])
        ids = [self.answer_ids(answer) for row in answers for answer in row]
        tokens, mask = (part.view(len(answers), branches, part.shape[-1]) for part in pad(ids))
        states = before = prompts.fork(branches)
        hidden = before.hidden[:, :, None, :][:, :, :0]
        if tokens.numel():  # else all answers are empty
            states, hidden = self.answering.extend(before, self.lm.embed(tokens), mask)
        predictors = torch.cat([before.hidden[:, :, None], hidden], dim=2)
        totals, counts = self._answer_likelihood(predictors.flatten(0, 1), ids)
        return states, totals.view(-1, branches), counts.view(-1, branches)

    def answer_branches(
        self, rows: Sequence[Sequence[tuple[str, str | None, str]]]
    ) -> PrefixStates:
        """States of `[θp ; x ; ŷ]` that share all they can: a passage is computed once, and so is each question.

        Args:
            rows: (question, context, answer) each, of one passage or one conversation a row; equal questions stand
                side by side.

        Returns:
            A row each, and a branch an answer in the given order; rows with fewer answers than others end in branches
            without any.
        """
        return self._reader.branches(rows)

    def verdict_logits(
        self, answers: PrefixStates, texts: Sequence[Sequence[tuple[str, str]]]
    ) -> Tensor:
        """`(answers, 2)`: logits of z_c and z_w after `[θp ; x ; ŷ ; θs]`, row by row.

        Args:
            answers: the states of `[θp ; x ; ŷ]`.
            texts: (question, answer) of each row's branches; branches beyond those are left out.
        """
        if self.self_eval is None:
            raise InputError(
                "expected an evaluator with θs, found none; train stage 3 or load a whole evaluator"
            )
        suffixes = [[self._vectors(self.self_eval, *pair) for pair in pairs] for pairs in texts]
        branches = torch.arange(max(map(len, texts)), device=self.lm.device).expand(len(texts), -1)
        places = [(row, branch) for row, pairs in enumerate(texts) for branch in range(len(pairs))]
        before, index = answers.branches(branches), torch.tensor(places, device=self.lm.device)
        if _is_cheaper_apart(before, [[len(suffix) for suffix in row] for row in suffixes]):
            before = before.separate(index)
            suffixes = [[suffix] for row in suffixes for suffix in row]
            index = torch.stack(
                [torch.arange(len(index), device=index.device), torch.zeros_like(index[:, 1])],
                dim=-1,
            )
        states = after_branches(self.self_eval.adapted(self.lm), before, suffixes)
        rows, columns = index.unbind(-1)
        return self.word_logits(states.hidden[rows, columns])

    def word_logits(self, hidden: Tensor) -> Tensor:
        """`(…, 2)`: logits of z_c and z_w after `hidden` `(…, hidden)`."""
        head, words = self.lm.model.get_output_embeddings(), self.word_ids()
        bias = None if head.bias is None else head.bias[words].float()
        return self.lm.scale_logits(
            torch.nn.functional.linear(hidden.float(), head.weight[words].float(), bias)
        )

    def word_ids(self) -> Tensor:
        """`(2,)`: the tokens z_c and z_w.

        Raises:
            InputError: one of the words is several tokens.
        """
        return torch.cat([self._word(self.correct), self._word(self.wrong)])

    @torch.inference_mode()
    def decode(
        self, prompts: PrefixStates, *, k: int, max_new_tokens: int, early_stopping: bool = False
    ) -> tuple[list[list[Answer]], Beams]:
        """The answers of each prompt by beam search, in the order of `Beams.scores`, and the beams themselves."""
        beams = beam_search(
            self.answering,
            prompts,
            k=k,
            max_new_tokens=max_new_tokens,
            early_stopping=early_stopping,
        )
        return self._texts(beams), beams

    @torch.inference_mode()
    def answer(
        self, prompts: PrefixStates, *, k: int, max_new_tokens: int
    ) -> tuple[list[list[Answer]], PrefixStates]:
        """Answer each prompt by beam search, the best first, as its text is read and judged.

        Where a text reads as it was generated, the states that decoding left behind are those of a reading. Where it
        does not (the model went on after it, or put white space around it), what counts is the text that users get.

        Returns:
            The beams of each prompt, and the states of `[θp ; x ; ŷ]` of the first, one branch a row.
        """
        found, beams = self.decode(prompts, k=k, max_new_tokens=max_new_tokens, early_stopping=True)
        best = [row[0] for row in found]
        generated = (ids[ids != self.lm.end_id] for ids in beams.tokens[:, 0])
        read = [self.answer_ids(answer.text) for answer in best]
        if all(map(torch.equal, generated, read)):
            return found, beams.states.branches(
                torch.zeros(len(best), 1, dtype=torch.long, device=self.lm.device)
            )
        states, totals, counts = self.answer_states(prompts, [[answer.text] for answer in best])
        means = (totals / counts)[:, 0].tolist()
        best = [
            replace(answer, log_likelihood=mean) for answer, mean in zip(best, means, strict=True)
        ]
        return [[first, *row[1:]] for first, row in zip(best, found, strict=True)], states

    @torch.inference_mode()
    def sample(
        self,
        prompts: PrefixStates,
        *,
        n: int,
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[str],
    ) -> list[list[Answer]]:
        """`n` answers to each prompt drawn from the model's distribution, equal seeds giving equal answers."""
        samples = sample_continuations(
            self.answering,
            prompts,
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds,
        )
        return self._texts(samples)

    def lengths(self, question: str, context: str | None, answer: str) -> tuple[int, int]:
        """Tokens of `[θp ; context]`, and of the question and ŷ after it."""
        reader = self._reader
        head = len(reader.before) + len(reader.context_ids(context))
        return head, len(reader.question_ids(question)) + len(reader.answer_ids(answer))

    @torch.inference_mode()
    def score(self, exchanges: Sequence[tuple[str, str | None, str]]) -> tuple[Tensor, Tensor]:
        """Judge given answers: a forward pass of `[θp ; x ; ŷ]`, its context computed once, and θs on its states.

        Args:
            exchanges: (question, context, answer) each.

        Returns:
            `(batch,)` mean log-probability of each answer's tokens (log f_norm) and `(batch,)` log P(z_c | x, ŷ),
            both in nats.
        """
        reader = self._reader
        asked = [reader.question_ids(question) for question, _, _ in exchanges]
        ids = [reader.answer_ids(answer) for _, _, answer in exchanges]
        rows = [(e[1], torch.cat(pair)) for e, *pair in zip(exchanges, asked, ids, strict=True)]
        states, hidden = reader.read(rows)
        predictors, _ = pad([h[len(q) - 1 :] for h, q in zip(hidden, asked, strict=True)])
        totals, counts = self._answer_likelihood(predictors, ids)
        texts = [[(question, answer)] for question, _, answer in exchanges]
        return totals / counts, self.verdict_logits(states, texts).log_softmax(-1)[:, 0]

    def answer_ids(self, answer: str) -> Tensor:
        """`(tokens,)`: the ids of an answer after its prompt, without the end token."""
        return self._reader.answer_ids(answer)

    @property
    def _reader(self) -> PromptReader:
        parts = [] if self.task is None else [self._vectors(self.task)]
        before = torch.cat([*parts, self.lm.embed(self.lm.start_ids)])
        return PromptReader(self.answering, before, self.template, self._markers)

    @property
    def _markers(self) -> tuple[str, ...]:
        """What no line of a text may begin with: it would pass for the layout or for the words of θs."""
        words = self.self_eval.text if self.self_eval is not None else ""
        return (*self.template.markers, *list_markers(words))

    def _texts(self, found: Beams | Samples) -> list[list[Answer]]:
        columns = (found.tokens.tolist(), found.lengths.tolist(), found.log_likelihoods.tolist())
        return [
            [self._text(ids[:n], mean) for ids, n, mean in zip(*row, strict=True)]
            for row in zip(*columns, strict=True)
        ]

    def _text(self, ids: list[int], log_likelihood: float) -> Answer:
        """The answer ends with the sequence, or where the model goes on with a question or a passage of its own."""
        end = self.lm.tokenizer.eos_token_id  # also where another token ends answers
        text = self.lm.tokenizer.decode(
            ids[: ids.index(end)] if end in ids else ids, skip_special_tokens=True
        )
        text = truncate_at_marker(text.strip(), self.template.markers)
        return Answer(text, log_likelihood, len(ids) + (ids[-1:] != [self.lm.end_id]))

    def _vectors(self, adapter: Adapter, *texts: str) -> Tensor:
        texts = tuple(neutralize_markers(text, self._markers) for text in texts)
        return adapter.vectors(self.lm, *texts).to(self.lm.embedding_weight.dtype)

    def _answer_likelihood(
        self, predictors: Tensor, ids: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Summed log-probabilities of `ids` and the end token after each, and how many tokens that is."""
        end = torch.tensor([self.lm.end_id], device=self.lm.device)
        targets, mask = pad([torch.cat([i, end]) for i in ids])
        logits = self.lm.logits(predictors[:, : targets.shape[1]][mask])
        chosen = logits.log_softmax(-1).gather(-1, targets[mask][:, None])[:, 0]
        totals = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, chosen).sum(-1)
        return totals, mask.sum(-1)

    def _word(self, word: str) -> Tensor:
        # Some tokenizers put a space before every text themselves.
        ids, bare = self.lm.token_ids(word), self.lm.token_ids(word.strip())
        if 1 not in (len(ids), len(bare)):
            raise InputError(
                f"expected one token for the verdict {word!r}, found {len(ids)}; choose another word"
            )
        return ids if len(ids) == 1 else bare


def _is_cheaper_apart(states: PrefixStates, lengths: Sequence[Sequence[int]]) -> bool:
    """Whether to run so many tokens after each branch in a row of its own, on copies of the slots that it sees.

    Side by side in one row nothing is copied, but the tokens of every branch attend over all slots of the row.
    """
    branches, slots = states.visible.shape[1:]
    own, tokens, longest = int(states.lengths.max()), max(map(sum, lengths)), max(map(max, lengths))
    return tokens * (slots + tokens) > branches * (own + longest) * (longest + _SLOTS_A_COPY)
