"""A language model with its two adapters: it answers under θp and judges its answers with θs.

Layout: `[θp ; x]` → answer ŷ, and `[θp ; x ; ŷ ; θs]` → z. Since θs comes last, an answer
and its likelihood are the same whether or not θs is there.

A model that only judges the answers of others may have a θs that changes the whole sequence
`[x ; ŷ ; θs]`. See `AspireLM.reach`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, takewhile
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from aspire_guard.errors import InputError
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.beam_search import Beams, beam_search
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.prompt_reader import AnsweredPrompt, Prompt, PromptReader
from aspire_guard.lm.sampling import Samples, sample_continuations
from aspire_guard.lm.template import (
    PromptTemplate,
    list_markers,
    neutralize_markers,
    truncate_at_marker,
)

# The products that attention computes in the time of copying one byte. It is a property of the machine,
# and a wrong value costs little: `benchmarks/attention.py` measures both ways around the break-even.
_PRODUCTS_PER_COPIED_BYTE = 37


@dataclass(frozen=True)
class Answer:
    """A decoded answer.

    Attributes:
        text: without surrounding white space.
        log_likelihood: mean log-probability of its tokens in nats, the end token included (log f_norm).
        tokens: the number of those tokens, the end token included.
    """

    text: str
    log_likelihood: float
    tokens: int


@dataclass(frozen=True)
class AspireLM:
    """The frozen model θ with its adapters θp (`task`) and θs (`self_eval`), either of which may be absent.

    Args:
        lm: the base model.
        task: θp, or None if the base model answers without an adapter.
        self_eval: θs, or None if no answer is to be judged.
        template: the prompt layout.
        correct: z_c, a single token with or without the space before it.
        wrong: z_w, a single token likewise.
        reach: the part of the sequence that θs changes. "suffix": its own words after the answer, so that the
            states before them are those of θp. "all": the prompt and the answer too, without θp. Such a
            model has more room to learn, and judges only the answers of others.
    """

    lm: LanguageModel
    task: Adapter | None = None
    self_eval: Adapter | None = None
    template: PromptTemplate = field(default_factory=PromptTemplate)
    correct: str = " correct"
    wrong: str = " wrong"
    reach: Literal["suffix", "all"] = "suffix"

    @property
    def answering_lm(self) -> LanguageModel:
        """The model under θp, which answers.

        Raises:
            InputError: θs reaches over the whole sequence.
        """
        self.check_can_answer()
        return self.reading_lm

    @property
    def reading_lm(self) -> LanguageModel:
        """The model that reads the prompt and the answer: under θs if that reaches over them, and else under θp."""
        adapter = self.self_eval if self.reach == "all" else self.task
        return self.lm if adapter is None else adapter.adapt(self.lm)

    def check_can_answer(self) -> None:
        """Make sure that the model answers questions itself.

        Raises:
            InputError: θs reaches over the whole sequence, so the model only judges the answers of others.
        """
        if self.reach == "all":
            raise InputError(
                "expected an evaluator that answers questions itself, found one that only judges the answers of other "
                'models, since its θs changes how the question is read (reach = "all"); take another evaluator, '
                "such as the starter"
            )

    def copy_onto(self, lm: LanguageModel) -> AspireLM:
        """Copy the adapters onto `lm`, the same model in another precision."""
        copied = replace(self, lm=lm)
        if self.task is not None:
            copied = replace(copied, task=self.task.copy_onto(lm))
        if self.self_eval is not None:
            copied = replace(copied, self_eval=self.self_eval.copy_onto(lm))
        return copied

    def prompt_states(self, prompts: Sequence[Prompt]) -> PrefixStates:
        """Compute the states of `[θp ; x]` for each (question, context).

        A context that several prompts share is computed once.
        """
        reader = self.reader
        rows: list[tuple[str | None, Tensor]] = []
        for question, context in prompts:
            rows.append((context, reader.question_ids(question)))
        states, _ = reader.read(rows)
        return states

    def answer_states(
        self,
        prompts: PrefixStates,
        answers: Sequence[Sequence[str]],
    ) -> tuple[PrefixStates, Tensor, Tensor]:
        """Compute the states of `[θp ; x ; ŷ]` for the answers to each prompt, an equal number each.

        Returns:
            The states, with one branch per answer; the summed log-probability of each answer with its
            end token, in nats, `(batch, answers)`; and the number of tokens in that sum,
            `(batch, answers)`.
        """
        shape = (len(answers), len(answers[0]))
        ids = [self.answer_ids(answer) for answer in chain.from_iterable(answers)]
        tokens, mask = pad(ids)  # (batch * answers, longest)
        states = prompts.fork(shape[1])
        predictors = states.hidden[:, :, None]  # (batch, answers, 1, hidden)
        if tokens.numel():  # otherwise all answers are empty
            states, hidden = self.reading_lm.extend(
                states,
                self.lm.embed(tokens.view(*shape, -1)),
                mask.view(*shape, -1),
            )
            predictors = torch.cat([predictors, hidden], dim=2)
        predictors = predictors.flatten(0, 1)
        totals, counts = self.sum_log_likelihoods(predictors, ids)
        return states, totals.view(shape), counts.view(shape)

    def answer_branches(self, rows: Sequence[Sequence[AnsweredPrompt]]) -> PrefixStates:
        """Compute the states of `[θp ; x ; ŷ]`, each passage and each question only once.

        Args:
            rows: (question, context, answer) of one passage or one conversation per row. Equal
                questions stand side by side.

        Returns:
            One row per given row, and one branch per answer in the given order. Rows with fewer
            answers than others end in branches without an answer.
        """
        return self.reader.read_branches(rows)

    def verdict_logits(
        self,
        answers: PrefixStates,
        texts: Sequence[Sequence[tuple[str, str]]],
    ) -> Tensor:
        """Return the logits of z_c and z_w after `[θp ; x ; ŷ ; θs]`, `(answers, 2)`, row by row.

        Args:
            answers: the states of `[θp ; x ; ŷ]`.
            texts: (question, answer) of each row's first branches. The branches beyond them are left out.
        """
        if self.self_eval is None:
            raise InputError(
                "expected an evaluator with θs, found none; train stage 3 or load a whole evaluator"
            )
        device = self.lm.device
        suffixes: list[list[Tensor]] = []  # θs after each answer, (length, dim)
        places: list[tuple[int, int]] = []  # row and branch of each answer
        for row, row_texts in enumerate(texts):
            row_suffixes: list[Tensor] = []
            for branch, (question, answer) in enumerate(row_texts):
                row_suffixes.append(self._vectors(self.self_eval, question, answer))
                places.append((row, branch))
            suffixes.append(row_suffixes)
        index = torch.tensor(places, device=device)  # (answers, 2)
        rows, branches = index.unbind(-1)

        longest_row = max(len(row_texts) for row_texts in texts)
        first_branches = torch.arange(longest_row, device=device)
        first_branches = first_branches.expand(len(texts), -1)  # (batch, longest row)
        states = answers.select_branches(first_branches)
        if _is_cheaper_apart(states, suffixes, self.lm.attention_heads):
            states = states.split_into_rows(index)
            suffixes = [[suffix] for suffix in chain.from_iterable(suffixes)]
            rows = torch.arange(len(index), device=device)
            branches = torch.zeros_like(rows)
        judging_lm = self.self_eval.adapt(self.lm)
        hidden = judging_lm.read_after_branches(states, suffixes)  # (batch, branches, hidden)
        return self.word_logits(hidden[rows, branches])

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of z_c and z_w after `hidden` `(…, hidden)`, `(…, 2)`."""
        words = self.word_ids()
        head = self.lm.model.get_output_embeddings()
        weight = head.weight[words].float()  # (2, hidden)
        bias = head.bias
        if bias is not None:
            bias = bias[words].float()
        logits = linear(hidden.float(), weight, bias)
        return self.lm.scale_logits(logits)

    def word_ids(self) -> Tensor:
        """Return the tokens z_c and z_w, `(2,)`.

        Raises:
            InputError: one of the words is several tokens.
        """
        correct = self._word_id(self.correct)
        wrong = self._word_id(self.wrong)
        return torch.cat([correct, wrong])

    @torch.inference_mode()
    def decode(
        self,
        prompts: PrefixStates,
        *,
        k: int,
        max_new_tokens: int,
    ) -> tuple[list[list[Answer]], Beams]:
        """Answer each prompt by beam search.

        Returns:
            The answers to each prompt, in the order of `Beams.scores`, and the beams themselves.
        """
        beams = beam_search(
            self.answering_lm,
            prompts,
            k=k,
            max_new_tokens=max_new_tokens,
        )
        return self._read_texts(beams), beams

    @torch.inference_mode()
    def answer(
        self,
        prompts: PrefixStates,
        *,
        k: int,
        max_new_tokens: int,
    ) -> tuple[list[list[Answer]], PrefixStates]:
        """Answer each prompt by beam search, and make the best answer ready to be judged.

        The states that decoding left behind are those of a reading if every best text reads as it was
        generated. If one does not (the model went on after it, or put white space around it), the
        texts are read again, since the text that users get is what counts.

        Returns:
            The beams of each prompt, best first, and the states of `[θp ; x ; ŷ]` of the best beams,
            one branch in each row.
        """
        answers, beams = self.decode(prompts, k=k, max_new_tokens=max_new_tokens)
        if self._are_read_as_generated(answers, beams):
            best = torch.zeros_like(beams.lengths[:, :1])
            return answers, beams.states.select_branches(best)
        best_texts = [[row[0].text] for row in answers]
        states, totals, counts = self.answer_states(prompts, best_texts)
        means = (totals / counts)[:, 0].tolist()
        read_answers: list[list[Answer]] = []
        for (first, *others), mean in zip(answers, means, strict=True):
            first = replace(first, log_likelihood=mean)
            read_answers.append([first, *others])
        return read_answers, states

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
        """Draw `n` answers to each prompt from the model's distribution.

        Equal seeds give equal answers.
        """
        samples = sample_continuations(
            self.answering_lm,
            prompts,
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds,
        )
        return self._read_texts(samples)

    def lengths(
        self,
        question: str,
        context: str | None,
        answer: str,
    ) -> tuple[int, int]:
        """Count the tokens of `[θp ; context]`, and those of the question and ŷ after it."""
        reader = self.reader
        context_ids = reader.context_ids(context)
        question_ids = reader.question_ids(question)
        answer_ids = reader.answer_ids(answer)
        head = len(reader.before) + len(context_ids)
        return head, len(question_ids) + len(answer_ids)

    def suffix_length(self, question: str, answer: str) -> int:
        """Count the tokens of θs after an answer, or 0 without θs."""
        if self.self_eval is None:
            return 0
        return len(self._vectors(self.self_eval, question, answer))

    @torch.inference_mode()
    def score(self, exchanges: Sequence[AnsweredPrompt]) -> tuple[Tensor, Tensor]:
        """Judge given answers.

        This is a forward pass of `[θp ; x ; ŷ]`, each context computed once, and of θs on its states.

        Args:
            exchanges: (question, context, answer) each.

        Returns:
            The mean log-probability of each answer's tokens (log f_norm) and log P(z_c | x, ŷ), both
            in nats, `(batch,)` each.
        """
        reader = self.reader
        question_ids = [reader.question_ids(question) for question, _, _ in exchanges]
        answer_ids = [reader.answer_ids(answer) for _, _, answer in exchanges]
        rows: list[tuple[str | None, Tensor]] = []
        texts: list[list[tuple[str, str]]] = []
        for i, (question, context, answer) in enumerate(exchanges):
            ids = torch.cat([question_ids[i], answer_ids[i]])
            rows.append((context, ids))
            texts.append([(question, answer)])
        states, hidden = reader.read(rows)

        predictors: list[Tensor] = []
        for ids, row_hidden in zip(question_ids, hidden, strict=True):
            # The last token of the question predicts the first token of the answer.
            predictors.append(row_hidden[len(ids) - 1 :])
        padded_predictors, _ = pad(predictors)
        totals, counts = self.sum_log_likelihoods(padded_predictors, answer_ids)
        logits = self.verdict_logits(states, texts)
        log_p = logits.log_softmax(-1)
        return totals / counts, log_p[:, 0]

    def answer_ids(self, answer: str) -> Tensor:
        """Return the ids of an answer after its prompt, `(tokens,)`, without the end token."""
        return self.reader.answer_ids(answer)

    @property
    def reader(self) -> PromptReader:
        """The reader of prompts and answers, under θp or under a θs that reaches over them."""
        before = self.lm.embed(self.lm.start_ids)
        if self.task is not None:
            vectors = self._vectors(self.task)
            before = torch.cat([vectors, before])
        return PromptReader(
            lm=self.reading_lm,
            before=before,
            template=self.template,
            markers=self._markers,
        )

    @property
    def _markers(self) -> tuple[str, ...]:
        """Words that no line of a text may begin with: it would pass for the layout or for the words of θs."""
        markers = self.template.markers
        if self.self_eval is not None:
            markers += list_markers(self.self_eval.text)
        return markers

    def _vectors(self, adapter: Adapter, *texts: str) -> Tensor:
        """Return the vectors of an adapter in the precision of the model."""
        plain = [neutralize_markers(text, self._markers) for text in texts]
        vectors = adapter.vectors(self.lm, *plain)
        return vectors.to(self.lm.embedding_weight.dtype)

    def _are_read_as_generated(
        self,
        answers: Sequence[Sequence[Answer]],
        beams: Beams,
    ) -> bool:
        """Tell whether the text of each best beam has the tokens of the beam."""
        for row, row_tokens in zip(answers, beams.tokens, strict=True):
            best = row_tokens[0]
            generated_ids = best[best != self.lm.end_id]
            read_ids = self.answer_ids(row[0].text)
            if not torch.equal(generated_ids, read_ids):
                return False
        return True

    def _read_texts(self, decoded: Beams | Samples) -> list[list[Answer]]:
        """Turn the tokens of each row's beams or samples into answers."""
        answers: list[list[Answer]] = []
        for tokens, lengths, means in zip(
            decoded.tokens.tolist(),
            decoded.lengths.tolist(),
            decoded.log_likelihoods.tolist(),
            strict=True,
        ):
            row: list[Answer] = []
            for ids, length, mean in zip(tokens, lengths, means, strict=True):
                row.append(self._read_text(ids[:length], mean))
            answers.append(row)
        return answers

    def _read_text(self, ids: list[int], log_likelihood: float) -> Answer:
        """Turn tokens into an answer.

        Its text ends with the sequence, or before a question or a passage that the model adds.
        """
        has_end = ids[-1:] == [self.lm.end_id]
        # The sequence also ends with the tokenizer's end token if another token ends answers.
        end_of_sequence = self.lm.tokenizer.eos_token_id
        text_ids = list(takewhile(lambda token: token != end_of_sequence, ids))
        text = self.lm.tokenizer.decode(text_ids, skip_special_tokens=True)
        return Answer(
            text=truncate_at_marker(text.strip(), self.template.markers),
            log_likelihood=log_likelihood,
            tokens=len(ids) if has_end else len(ids) + 1,
        )

    def sum_log_likelihoods(
        self,
        predictors: Tensor,
        ids: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Sum the log-probabilities of each answer's tokens and the end token after them.

        Args:
            predictors: the hidden states that predict those tokens, `(answers, tokens, hidden)`.
            ids: the tokens of each answer, `(tokens,)`.

        Returns:
            The sums in nats, and the number of tokens in each, `(answers,)` each.
        """
        device = self.lm.device
        end = torch.tensor([self.lm.end_id], device=device)
        targets, mask = pad([torch.cat([answer, end]) for answer in ids])  # (answers, longest)
        longest = targets.shape[1]
        logits = self.lm.logits(predictors[:, :longest][mask])  # (all tokens, vocabulary)
        log_p = logits.log_softmax(-1)
        target_column = targets[mask][:, None]  # (all tokens, 1)
        log_p_targets = log_p.gather(-1, target_column)[:, 0]
        padded = torch.zeros(mask.shape, device=device)
        padded = padded.masked_scatter(mask, log_p_targets)  # (answers, longest)
        return padded.sum(-1), mask.sum(-1)

    def _word_id(self, word: str) -> Tensor:
        """Return the single token of a verdict word, `(1,)`."""
        ids = self.lm.token_ids(word)
        if len(ids) == 1:
            return ids
        # Some tokenizers put a space before every text themselves.
        bare_ids = self.lm.token_ids(word.strip())
        if len(bare_ids) == 1:
            return bare_ids
        raise InputError(
            f"expected one token for the verdict {word!r}, found {len(ids)}; choose another word"
        )


def _is_cheaper_apart(
    states: PrefixStates,
    suffixes: Sequence[Sequence[Tensor]],
    heads: int,
) -> bool:
    """Tell whether to run each branch's suffix in a row of its own, on copies of the slots that it sees.

    Side by side in one row nothing is copied, but the tokens of every branch attend over all slots
    of the row. Both costs are counted in slots that one token attends to.
    """
    branches, slots = states.visible.shape[1:]
    tokens_together = 0
    tokens_apart = 0
    for row in suffixes:
        lengths = [len(suffix) for suffix in row]
        tokens_together = max(tokens_together, sum(lengths))
        tokens_apart = max(tokens_apart, *lengths)
    slots_apart = int(states.lengths.max()) + tokens_apart
    cost_together = tokens_together * (slots + tokens_together)
    cost_apart = branches * slots_apart * (tokens_apart + _cost_of_copying_a_slot(states, heads))
    return cost_together > cost_apart


def _cost_of_copying_a_slot(states: PrefixStates, heads: int) -> float:
    """Return the cost of copying a slot's keys and values, in slots that one token attends to.

    The fewer key-value heads the query heads share, and the smaller their numbers, the less there
    is to copy for the same attention.
    """
    keys, _ = states.layers[0]  # (batch, kv_heads, slots, head_dim)
    bytes_per_product = keys.shape[1] * keys.element_size() / heads
    return _PRODUCTS_PER_COPIED_BYTE * bytes_per_product
