"""The prompt layout: how a question, its context and an answer become text."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, field_validator


class PromptTemplate(BaseModel):
    """The text around a context, a question and an answer; part of the evaluator, since it is trained with it.

    The three pieces are tokenised apart, so their tokens don't depend on one another and
    the states of one context serve all of its questions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: str = "Passage: {context}\n"
    question: str = "Question: {question}\nAnswer:"
    answer: str = " {answer}"

    @field_validator("context", "question", "answer")
    @classmethod
    def _names_its_part(cls, value: str, info: object) -> str:
        name = "{" + str(getattr(info, "field_name", "")) + "}"
        if value.count(name) != 1:
            raise ValueError(f"expected {name} exactly once, found {value!r}")
        return value

    def render_context(self, context: str | None) -> str:
        """The text before the question: empty for a closed-book question."""
        return self.context.replace("{context}", context) if context else ""

    def render_question(self, question: str) -> str:
        """The text from the question up to the answer."""
        return self.question.replace("{question}", question)

    def render_answer(self, answer: str) -> str:
        """An empty answer stays empty, without the space that parts an answer from its prompt."""
        return self.answer.replace("{answer}", answer) if answer else ""

    def render(self, question: str, context: str | None) -> str:
        """The whole prompt x."""
        return self.render_context(context) + self.render_question(question)

    def parse(self, text: str) -> tuple[str, str | None]:
        """Question and context out of a rendered prompt; any other text is a question without context."""
        context, question = (
            re.escape(part).replace(r"\{context\}", "(?P<context>.*)").replace(r"\{question\}", "(?P<question>.*)")
            for part in (self.context, self.question)
        )
        match = re.fullmatch(f"(?:{context})?{question}", text, re.DOTALL)
        return (match["question"], match["context"]) if match else (text, None)
