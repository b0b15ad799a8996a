"""Every error that aspire-guard raises on purpose.

    AspireGuardError
    ├── InputError (ValueError)          the caller can fix it: a file, a record, an option
    │   ├── DatasetError                 a line of a dataset that is not a QA record
    │   ├── ExchangeError                no question or answer can be read from a chain's input and output
    │   ├── UnguardedWriteError          a guarded chain writes past the guard into the graph around it
    │   ├── PolicyError                  a policy file, or a threshold it names, can't be used
    │   └── ReviewConflictError          a ticket that is unknown, or was decided otherwise
    ├── BaseModelError                   a base model that is unknown, missing or unreadable
    ├── EvaluatorFolderError             an evaluator folder that can't be loaded
    │   ├── SchemaVersionError           written by another version of the format
    │   ├── CorruptEvaluatorError        a file is missing, truncated or altered
    │   └── BaseModelMismatchError       trained on another base model
    ├── EvaluationError                  scoring failed at run time
    ├── RouteTimeoutError                a chain, evaluator or fallback took longer than the policy allows
    └── ReviewQueueError                 the review queue's database can't be reached or used
        └── ReviewSchemaError            its tables are not ours, or of another version

Messages say what was expected, what was found and the way out. `retryable` tells
whether the same call may succeed when it is made again.
"""

from __future__ import annotations


class AspireGuardError(Exception):
    """Base of all errors of this library."""

    retryable: bool = False


class InputError(AspireGuardError, ValueError):
    """The caller gave something that can't be used."""


class DatasetError(InputError):
    """A dataset file holds a line that is not a valid record."""


class ExchangeError(InputError):
    """No question or no answer can be read from a chain's input and output."""


class UnguardedWriteError(InputError):
    """A guarded chain writes past the guard into the graph around it."""


class PolicyError(InputError):
    """A policy file can't be used, or names a threshold that the evaluator does not have."""


class ReviewConflictError(InputError):
    """A ticket is unknown, or was decided otherwise."""


class BaseModelError(AspireGuardError):
    """The base language model can't be found or read."""


class EvaluatorFolderError(AspireGuardError):
    """An evaluator folder can't be loaded."""


class SchemaVersionError(EvaluatorFolderError):
    """The folder was written by another version of the format."""


class CorruptEvaluatorError(EvaluatorFolderError):
    """A file of the folder is missing, truncated or altered."""


class BaseModelMismatchError(EvaluatorFolderError):
    """The evaluator was trained on another base model."""


class EvaluationError(AspireGuardError):
    """An evaluator failed to score an exchange."""

    retryable = True


class RouteTimeoutError(AspireGuardError, TimeoutError):
    """A chain, an evaluator or a fallback took longer than the policy allows."""

    retryable = True


class ReviewQueueError(AspireGuardError):
    """The review queue's database can't be reached or used."""

    retryable = True


class ReviewSchemaError(ReviewQueueError):
    """The database holds tables that are not ours, or of another version."""

    retryable = False
