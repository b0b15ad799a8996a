"""The prompt layout as text, there and back."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aspire_guard.lm.template import PromptTemplate

TEMPLATE = PromptTemplate()


def test_a_prompt_is_passage_question_and_the_word_answer() -> None:
    """The default layout, spelled out."""
    assert TEMPLATE.render("Who?", "A passage.") == "Passage: A passage.\nQuestion: Who?\nAnswer:"
    assert TEMPLATE.render_answer("Ada") == " Ada"


@pytest.mark.parametrize("context", [None, ""])
def test_a_closed_book_prompt_has_no_passage(context: str | None) -> None:
    """No context and an empty one are the same."""
    assert TEMPLATE.render("Who?", context) == "Question: Who?\nAnswer:"


def test_an_empty_answer_is_empty() -> None:
    """Not even the space that parts an answer from its prompt remains."""
    assert TEMPLATE.render_answer("") == ""


@pytest.mark.parametrize(
    "question",
    ["Who?", "Who\nor what?", "{question} {context} {answer}", r"(a|b)*\d", "", "누가?"],
)
@pytest.mark.parametrize(
    "context",
    [
        None,
        "One line.",
        "Two\nlines.",
        "\n\nblank lines\n",
        "Question: of its own?\nAnswer: yes",
        "A passage\nQuestion: of its own?\nAnswer: yes",
        "{question} {context}",
        "문장.",
    ],
)
def test_parsing_undoes_rendering(question: str, context: str | None) -> None:
    """Question and context come back as they went in, with line breaks, braces and prompts inside."""
    assert TEMPLATE.parse(TEMPLATE.render(question, context)) == (question, context)


@pytest.mark.parametrize("text", ["Who?", "", "Answer:", "Passage: x\n", "Hello\nQuestion: Who?\nAnswer:"])
def test_any_other_text_is_a_question_without_context(text: str) -> None:
    """What was not rendered by this template is taken whole."""
    assert TEMPLATE.parse(text) == (text, None)


def test_another_template_parses_its_own_prompts() -> None:
    """Characters that mean something in a regular expression are plain text in a template."""
    template = PromptTemplate(context="[{context}] (+)\n", question="{question} ->", answer="{answer}")
    prompt = template.render("Who?", "a] (+)\nb")
    assert prompt == "[a] (+)\nb] (+)\nWho? ->"
    assert template.parse(prompt) == ("Who?", "a] (+)\nb")


@pytest.mark.parametrize("part", ["context", "question", "answer"])
@pytest.mark.parametrize("text", ["no placeholder", "{context}{question}{answer}" * 2])
def test_each_part_names_its_placeholder_exactly_once(part: str, text: str) -> None:
    """A template that would lose or repeat its text is refused."""
    with pytest.raises(ValidationError, match=f"expected {{{part}}} exactly once"):
        PromptTemplate.model_validate({part: text})


def test_unknown_parts_are_refused() -> None:
    """A misspelt part is an error, not a default."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PromptTemplate.model_validate({"contxt": "{context}"})
