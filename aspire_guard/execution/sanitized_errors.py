"""The errors that may leave the guard, and the stand-ins for all others.

An error of a guarded chain may hold the answer: in its words, its attributes, its cause, its notes
or the variables of its traceback. So a stand-in leaves in its place, unless it can be shown that no
model had answered when the error was raised.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from aspire_guard.errors import (
    AspireGuardError,
    ChainError,
    RouteTimeoutError,
    UnguardedWriteError,
    name_error_type,
)
from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.langgraph_compat import is_interrupt, is_parent_command

# The names of types, ours and of the clients of models, that say that a request brought no answer.
_REQUEST_FAILURE = re.compile(
    "Connect|Timeout|TimedOut|RateLimit|Authenticat|Authoriz|PermissionDenied|Credential|ApiKey"
    "|Unavailable|gaierror|SSLError"
)
# A model raises these about what it has read. It may have read an answer.
_ERRORS_ABOUT_CONTENT = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
_FIRST_HTTP_ERROR = 400
# The errors of the guard's own that its chain may raise: time limits, and guards inside the chain.
_GUARD_ERRORS = (ChainError, RouteTimeoutError, UnguardedWriteError)
_ERRORS_MODULE = AspireGuardError.__module__


def sanitize_chain_error(
    error: Exception, chain: Runnable[Any, Any], recorder: RunRecorder | None
) -> Exception:
    """Return the error itself if no model had answered when the chain raised it, or else a stand-in.

    Args:
        error: the error of a run of the chain.
        chain: the chain that raised it.
        recorder: the record of the run, or None if there is no record.
    """
    if not is_parent_command(error) and type(error) not in _GUARD_ERRORS:
        if _is_before_answer(error, chain, recorder):
            return error
        if not is_interrupt(error):
            return _make_stand_in(error)
    sanitized = sanitize_error(error)
    assert isinstance(sanitized, Exception)
    return sanitized


def sanitize_error(error: BaseException) -> BaseException:
    """Return the exception that may leave the guard in place of an error that may hold an answer.

    An error of ours is made anew, without its cause and its traceback. An exception that controls
    the program keeps its type, and an interrupt of a graph its value too. Of any other error, only
    the name of its type is left.
    """
    if is_parent_command(error):
        return UnguardedWriteError(
            "expected a guarded chain to leave the graph around it alone, found a Command for the parent graph, which "
            "would write past the guard; guard the step that answers, in an agent with AspireGuardMiddleware, and "
            "command outside the guard"
        )
    if is_interrupt(error):
        return _strip(error)
    if not isinstance(error, Exception):
        return _sanitize_control(error)
    if isinstance(error, ChainError):
        return ChainError(str(error), error.error_type, error.retryable)
    # The words of a subclass that the user has written are not ours.
    if isinstance(error, AspireGuardError) and type(error).__module__ == _ERRORS_MODULE:
        return type(error)(str(error))
    return _make_stand_in(error)


def _make_stand_in(error: BaseException) -> ChainError:
    name = name_error_type(error)
    try:
        retryable = getattr(error, "retryable", True) is not False
    except Exception:
        retryable = True
    return ChainError(
        f"expected an output of the guarded chain, found that it raised {name}, whose words are left out because they "
        "may quote an answer that was not released; read them in a trace of the chain, or make the guard with "
        "original_errors=True",
        name,
        retryable,
    )


def _sanitize_control(error: BaseException) -> BaseException:
    """Make an exception that is no `Exception` anew, since it may have been raised with a text."""
    if isinstance(error, BaseExceptionGroup):
        parts = [
            _make_stand_in(part) if isinstance(part, Exception) else _sanitize_control(part)
            for part in error.exceptions
        ]
        return BaseExceptionGroup("exceptions of a guarded chain", parts)
    if isinstance(error, SystemExit):
        # Any other code is printed, and then stands for 1.
        return SystemExit(error.code if isinstance(error.code, int | None) else 1)
    is_empty = not error.args and not vars(error)
    if is_empty or _is_outside_cancellation(error):
        return _strip(error)
    if name_error_type(error) == type(error).__name__:
        try:
            return type(error)()
        except Exception:
            pass
    return _make_stand_in(error)


def _strip(error: BaseException) -> BaseException:
    """Remove the cause, the context, the notes and the traceback of an exception."""
    # The setters of the base class, since a class of the user may refuse to be changed.
    for name in ("__cause__", "__context__", "__traceback__"):
        getattr(BaseException, name).__set__(error, None)
    vars(error).pop("__notes__", None)
    return error


def _is_outside_cancellation(error: BaseException) -> bool:
    """Tell whether an exception cancels this task from outside, and has a message for its sender."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


def _is_before_answer(
    error: Exception, chain: Runnable[Any, Any], recorder: RunRecorder | None
) -> bool:
    """Tell whether it is shown that no model had answered when a chain raised an error.

    A model that a function of the chain calls without LangChain is in no record. So if no model is
    in the record, the error must say that a request failed, or the chain must have a model that was
    not reached.
    """
    if recorder is None or recorder.has_model_output:
        return False
    if all(_is_request_failure(link) for link in _list_links(error)):
        return True
    if recorder.has_asked_model:
        return not isinstance(error, _ERRORS_ABOUT_CONTENT) and not _has_response(error)
    return _shows_model(chain)


def _list_links(error: BaseException) -> list[BaseException]:
    """List an error with its causes and contexts."""
    links: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and all(link is not known for known in links):
            links.append(link)
            waiting += [link.__cause__, link.__context__]
    return links


def _is_request_failure(error: BaseException) -> bool:
    if getattr(error, "__notes__", None):
        return False
    if any(_REQUEST_FAILURE.search(base.__name__) for base in type(error).__mro__):
        return True
    return isinstance(error, ImportError) or _find_status(error) >= _FIRST_HTTP_ERROR


def _has_response(error: Exception) -> bool:
    """Tell whether an error carries the response to a request that succeeded."""
    return 0 < _find_status(error) < _FIRST_HTTP_ERROR or hasattr(error, "completion")


def _find_status(error: BaseException) -> int:
    """Return the HTTP status that the error of a model's client carries, or 0."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "code"):
            status = getattr(holder, name, None)
            if type(status) is int:
                return status
    return 0


def _shows_model(chain: Runnable[Any, Any]) -> bool:
    """Tell whether a chain has a model of LangChain as one of its steps."""
    try:
        steps = [node.data for node in chain.get_graph().nodes.values()]
    except Exception:
        return False
    return any(_is_model(step) for step in steps)


def _is_model(step: Any) -> bool:
    while isinstance(step, RunnableBindingBase):
        step = step.bound
    return isinstance(step, BaseLanguageModel)
