"""All errors that aspire-guard raises on purpose.

    AspireGuardError
    ├── InputError (ValueError)          input that the caller can fix: a file, a record, an option
    │   ├── DatasetError                 a line of a dataset that is not a QA record
    │   ├── ExchangeError                a chain's input and output without a readable question or answer
    │   ├── UnguardedWriteError          a write of a guarded chain past the guard into the graph around it
    │   ├── PolicyError                  a policy file, or a threshold it names, that can't be used
    │   └── ReviewConflictError          a ticket that is unknown, or was decided otherwise
    ├── BaseModelError                   a base model that is unknown, missing or unreadable
    ├── EvaluatorFolderError             an evaluator folder that can't be loaded
    │   ├── SchemaVersionError           a folder written by another version of the format
    │   ├── CorruptEvaluatorError        a folder with a missing, truncated or altered file
    │   └── BaseModelMismatchError       an evaluator trained on another base model
    ├── ChainError                       a chain's error whose own words may quote an answer
    ├── EvaluationError                  scoring that failed at run time
    ├── RouteTimeoutError                a chain, evaluator or fallback that took longer than the policy allows
    └── ReviewQueueError                 a review queue's database that can't be reached or used
        ├── ReviewSchemaError            a database whose tables are not ours, or of another version
        └── DamagedTicketError           a ticket whose row can't be read

Every message says what was expected, what was found and the way out. `retryable` is True if the
same call may succeed when it is made again.
"""

from __future__ import annotations

import sys


class AspireGuardError(Exception):
    """The base of all errors of this library.

    Attributes:
        retryable: True if the same call may succeed when it is made again.
    """

    retryable: bool = False


class InputError(AspireGuardError, ValueError):
    """Input that can't be used, which the caller can fix."""


class DatasetError(InputError):
    """A line of a dataset file that is not a valid record."""


class ExchangeError(InputError):
    """A chain's input and output from which no question or no answer can be read."""


class UnguardedWriteError(InputError):
    """A write of a guarded chain past the guard into the graph around it."""


class PolicyError(InputError):
    """A policy file that can't be used, or that names a threshold that the evaluator does not have."""


class ReviewConflictError(InputError):
    """A ticket that is unknown, or was decided otherwise."""


class BaseModelError(AspireGuardError):
    """A base language model that can't be found or read."""


class EvaluatorFolderError(AspireGuardError):
    """An evaluator folder that can't be loaded."""


class SchemaVersionError(EvaluatorFolderError):
    """An evaluator folder that was written by another version of the format."""


class CorruptEvaluatorError(EvaluatorFolderError):
    """An evaluator folder with a file that is missing, truncated or altered."""


class BaseModelMismatchError(EvaluatorFolderError):
    """An evaluator that was trained on another base model."""


class ChainError(AspireGuardError):
    """A stand-in for an error of a guarded chain whose own words may quote an answer that was not released.

    It has no cause, no context and nothing else of the original.

    Attributes:
        error_type: the name of the original's type.
    """

    def __init__(self, message: str, error_type: str = "Exception", retryable: bool = True) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.retryable = retryable


class EvaluationError(AspireGuardError):
    """A failure of an evaluator to score an exchange."""

    retryable = True


class RouteTimeoutError(AspireGuardError, TimeoutError):
    """A chain, an evaluator or a fallback that took longer than the policy allows."""

    retryable = True


class ReviewQueueError(AspireGuardError):
    """A review queue whose database can't be reached or used."""

    retryable = True


class ReviewSchemaError(ReviewQueueError):
    """A database with tables that are not ours, or of another version."""

    retryable = False


class DamagedTicketError(ReviewQueueError):
    """A ticket whose row can't be read."""

    retryable = False


def name_error_type(error: BaseException) -> str:
    """Return the name of an error's type, or of the first base that its module really holds.

    A type that was made at run time may have any text for a name.
    """
    for error_type in type(error).__mro__:
        name = error_type.__name__
        module = sys.modules.get(str(error_type.__module__))
        if module is not None and vars(module).get(name) is error_type:
            return name
    return "Exception"
