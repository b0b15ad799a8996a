"""Policies from files: YAML or JSON, with runnables and functions by name.

bands:
  - {at_least: accept, route: accept}
  - at_least: 0.4
    route:
      - fallback: {runnable: "my_app.models:large", timeout: 20, retries: 2, cost: 3}
      - human_review: {queue: "sqlite:///reviews.db", wait: 60}
  - {at_least: 0, route: {abstain: "Please ask at the desk."}}
budget: {hops: 2}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from aspire_guard.errors import InputError, PolicyError
from aspire_guard.files import describe_validation_error
from aspire_guard.import_by_name import import_by_name
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Budget,
    Custom,
    Fallback,
    HumanReview,
    Route,
    Timeouts,
)

Policy = TypeVar("Policy", bound=BaseModel)

_ROUTES: dict[str, type[Any]] = {
    "accept": Accept,
    "abstain": Abstain,
    "fallback": Fallback,
    "human_review": HumanReview,
    "custom": Custom,
}
# What stands for the whole route where no more is said of it.
_FIRST = {
    "abstain": "message",
    "fallback": "runnable",
    "human_review": "queue",
    "custom": "function",
}
_BY_NAME = ("runnable", "function")


def read_policy(kind: type[Policy], path: Path, runnables: Mapping[str, Any]) -> Policy:
    """The policy in a YAML or JSON file; see `RoutingPolicy.load`.

    Raises:
        PolicyError: the file is missing, or something in it can't be used.
    """
    try:
        # JSON is YAML too.
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        found = error.strerror or str(error)
        raise PolicyError(
            f"{path}: expected a policy file to read, found: {found}; check the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found = " ".join(str(error).split())
        raise PolicyError(
            f"{path}: expected YAML or JSON in UTF-8, found: {found}; fix the file"
        ) from error
    if not isinstance(values, dict):
        raise PolicyError(
            f"{path}: expected a mapping of settings, found {_named(values)}; write `threshold: 0.8`, say"
        )
    try:
        return kind.model_validate(_policy(values, runnables))
    except ValidationError as error:
        found = describe_validation_error(error, "the policy")
        raise PolicyError(f"{path}: {found}; fix it") from error
    except (InputError, TypeError) as error:
        raise PolicyError(f"{path}: {error}") from error


def _policy(values: dict[Any, Any], runnables: Mapping[str, Any]) -> dict[Any, Any]:
    read = dict(values)
    if "bands" in read:
        read["bands"] = tuple(_band(band, runnables) for band in _listed(read["bands"], "bands"))
    if read.get("otherwise") is not None:
        read["otherwise"] = _row(read["otherwise"], runnables)
    for name, kind in (("budget", Budget), ("timeouts", Timeouts)):
        if name in read:
            read[name] = kind(**_mapping(read[name], name))
    return read


def _band(value: Any, runnables: Mapping[str, Any]) -> Band:
    fields = _mapping(value, "a band")
    if set(fields) != {"at_least", "route"}:
        found = ", ".join(map(str, fields)) or "none"
        raise PolicyError(
            f"expected a band to have the keys at_least and route, found {found}; name these two"
        )
    return Band(fields["at_least"], _row(fields["route"], runnables))


def _row(value: Any, runnables: Mapping[str, Any]) -> tuple[Route, ...]:
    return tuple(
        _route(route, runnables) for route in (value if isinstance(value, list) else [value])
    )


def _route(value: Any, runnables: Mapping[str, Any]) -> Route:
    """A route by its name alone, or its name with its settings, or its name with its first setting."""
    named = {value: {}} if isinstance(value, str) else value
    if not isinstance(named, dict) or len(named) != 1 or next(iter(named)) not in _ROUTES:
        found = ", ".join(map(str, named)) if isinstance(named, dict) else _named(value)
        raise PolicyError(
            f"expected one of the routes {', '.join(_ROUTES)}, found {found}; name one"
        )
    [(name, settings)] = named.items()
    fields = settings if isinstance(settings, dict) else {_FIRST.get(name, ""): settings}
    fields = {
        key: _looked_up(given, runnables) if key in _BY_NAME else given
        for key, given in fields.items()
    }
    if fields.get("otherwise") is not None:
        fields["otherwise"] = _route(fields["otherwise"], runnables)
    route: Route = _ROUTES[name](**fields)
    return route


def _looked_up(name: Any, runnables: Mapping[str, Any]) -> Any:
    if name in runnables:
        return runnables[name]
    try:
        return import_by_name(str(name))
    except InputError as error:
        raise PolicyError(
            f"{error}, or give it to load (given: {', '.join(runnables) or 'none'})"
        ) from error


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise PolicyError(
            f"expected {what} to be a mapping, found {_named(value)}; write its settings as key: value"
        )
    return value


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise PolicyError(
            f"expected {what} to be a list, found {_named(value)}; begin each with a dash"
        )
    return value


def _named(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
