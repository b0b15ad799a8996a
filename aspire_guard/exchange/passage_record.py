"""The passages that steps inside a run of a chain return and hand on, and those of them that the model was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import ToolMessage

from aspire_guard.exchange.conversation import is_handoff_tool, states_facts
from aspire_guard.exchange.extraction import OUTPUT_CONTEXT_KEYS
from aspire_guard.exchange.passages import join_passages, parse_passages
from aspire_guard.verdict import ContextSource


@dataclass(frozen=True)
class _Finding:
    """The passages that a step returned or handed on."""

    run_id: UUID
    source: ContextSource
    passages: list[str]


class PassageRecord:
    """A record of passages by the runs of a chain that returned them. The caller guards it against several threads.

    The outermost step counts. What a retriever, a tool or a step that reranks documents has read from other steps
    inside it, the answering model does not read.
    """

    def __init__(self) -> None:
        self._parents: dict[UUID, UUID | None] = {}
        self._findings: list[_Finding] = []
        # The values of each prompt that was formatted with a context, and that context.
        self._prompts: list[tuple[list[str], str]] = []
        # The documents that were last handed on under each key, and those that a step chose to leave out.
        self._documents: dict[str, set[str]] = {}
        self._left_out: set[str] = set()
        self._text: str | None = None

    def clear(self) -> None:
        """Drop the record. What a step that has started already returns later is not recorded."""
        self._parents.clear()
        self._findings.clear()
        self._prompts.clear()
        self._documents.clear()
        self._left_out.clear()
        self._text = None

    def begin(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        """Note the start of a step."""
        self._parents[run_id] = parent_run_id

    def add_prompt(self, values: object) -> None:
        """Note the values that a prompt is formatted with."""
        if not isinstance(values, Mapping):
            return
        for key in OUTPUT_CONTEXT_KEYS:
            context = join_passages(parse_passages(values.get(key)) or [])
            if context is not None:
                parsed = [parse_passages(value) or [] for value in values.values()]
                self._prompts.append(([join_passages(texts) or "" for texts in parsed], context))
                return

    def add_documents(self, run_id: UUID, documents: object) -> None:
        """Note what a retriever returned."""
        self._add(run_id, "retriever", parse_passages(documents))

    def add_tool_output(self, run_id: UUID, output: object, tool: str | None) -> None:
        """Note what a tool returned. Errors and the notes of a hand-off are no passages."""
        if is_handoff_tool(tool) or (isinstance(output, ToolMessage) and not states_facts(output)):
            return
        self._add(run_id, "tool", parse_passages(output))

    def add_step_output(self, run_id: UUID, output: object) -> None:
        """Note the documents that any other step returned, or handed on under one of the usual keys."""
        if _holds_documents(output):
            self._add(run_id, "chain", parse_passages(output))
        elif isinstance(output, Mapping):
            for key in OUTPUT_CONTEXT_KEYS:
                self._add_value(run_id, key, output.get(key))

    def find(self) -> tuple[list[str], ContextSource]:
        """Return the passages, each once, and their source.

        If a prompt was formatted with a context, these are the passages that are in its values, or else that context.
        """
        sources: dict[str, ContextSource] = {}
        for finding in self._findings:
            for passage in finding.passages:
                sources.setdefault(passage, finding.source)
        passages = [passage for passage in sources if passage not in self._left_out]
        if self._prompts:
            used = [passage for passage in passages if self._is_in_prompt(passage)]
            passages = used or [self._prompts[-1][1]]
        elif not sources and self._text is not None:
            passages = [self._text]
        return passages, sources.get(passages[0], "chain") if passages else "chain"

    def _is_in_prompt(self, passage: str) -> bool:
        return any(passage.strip() in text for values, _ in self._prompts for text in values)

    def _add_value(self, run_id: UUID, key: str, value: Any) -> None:
        """Note a value that a step handed on under a key."""
        passages = parse_passages(value) or []
        before = self._documents.get(key, set())
        if not _holds_documents(value) and not (before and value == []):
            self._text = join_passages(passages) or self._text
            return
        documents = set(passages)
        # A later step that hands on fewer of the documents has chosen from them.
        if documents < before:
            self._left_out |= before - documents
        self._left_out -= documents
        self._documents[key] = documents
        known = {passage for finding in self._findings for passage in finding.passages}
        unknown = [passage for passage in passages if passage not in known]
        if unknown:
            self._findings.append(_Finding(run_id, "chain", unknown))

    def _add(self, run_id: UUID, source: ContextSource, passages: list[str] | None) -> None:
        """Note the passages of a step in place of those of the steps inside it. None is an unreadable output."""
        if run_id not in self._parents or passages is None:
            return
        inside = [finding for finding in self._findings if self._is_inside(finding.run_id, run_id)]
        if source == "chain" and inside:
            source = inside[0].source
        self._findings = [finding for finding in self._findings if finding not in inside]
        if passages:
            self._findings.append(_Finding(run_id, source, passages))

    def _is_inside(self, run_id: UUID, outer: UUID) -> bool:
        parent = self._parents.get(run_id)
        while parent is not None and parent != outer:
            parent = self._parents.get(parent)
        return parent is not None


def _holds_documents(value: object) -> bool:
    """Tell whether a value is a list of documents, perhaps with their scores. Any other texts may be anything."""
    if not isinstance(value, list | tuple) or not value:
        return False
    first = value[0]
    if isinstance(first, list | tuple) and first:
        first = first[0]
    return isinstance(first, Document)
