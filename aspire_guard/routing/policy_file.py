"""Policies from YAML or JSON files, with runnables and functions by name.

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

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from aspire_guard.errors import InputError, PolicyError
from aspire_guard.files import describe_validation_error, write_text
from aspire_guard.import_by_name import check_name, import_by_name
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.ticket import Ticket
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
from aspire_guard.strict_json import check_plain_file

Policy = TypeVar("Policy", bound=BaseModel)

_ROUTES: dict[str, type[Any]] = {
    "accept": Accept,
    "abstain": Abstain,
    "fallback": Fallback,
    "human_review": HumanReview,
    "custom": Custom,
}
# The setting that a route's value stands for if the value is not a mapping, as in `fallback: large`.
_MAIN_SETTING = {
    "abstain": "message",
    "fallback": "runnable",
    "human_review": "queue",
    "custom": "function",
}
_MOST_BYTES = 2**20
_DEEPEST = 50
_LONGEST_REASON = 500
_SETTINGS_BY_NAME = ("runnable", "function")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice in a mapping is an error: the last would win unseen."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read a node, unless it is nested so deeply that reading it takes seconds."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make the mapping of a node."""
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} twice", mark)
            keys.add(key)
        return super().construct_mapping(node, deep=deep)


class _Named:
    """The objects that a policy names: those given by the caller, and those to import.

    Args:
        runnables: the given objects by name.
    """

    def __init__(self, runnables: Mapping[str, Any]) -> None:
        self._runnables = runnables

    def resolve(self, name: Any) -> Any:
        """Return the object of that name."""
        if isinstance(name, str) and name in self._runnables:
            return self._runnables[name]
        try:
            return self._find(str(name))
        except InputError as error:
            given = ", ".join(self._runnables) or "none"
            raise PolicyError(f"{error}, or give it to load (given: {given})") from error

    def find_queue(self, queue: Any) -> Any:
        """Return a review queue, the URL of its database, or its arguments."""
        return queue

    def _find(self, name: str) -> Any:
        return import_by_name(name)


class _StandIns(_Named):
    """Stand-ins for the objects to import, with which the rest of a policy is checked."""

    def find_queue(self, queue: Any) -> Any:
        """Return a queue that holds nothing in place of a URL or of arguments."""
        return _NoDesk() if isinstance(queue, str | dict) else queue

    def _find(self, name: str) -> Any:
        check_name(name)
        return lambda *_: None


class _NoDesk:
    """A stand-in for a review queue."""

    def submit(self, item: ReviewItem) -> Ticket:
        """Refuse the item."""
        raise NotImplementedError

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """Return that nobody has decided."""
        return None

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """Return that nobody has decided."""
        return None


def read_policy(kind: type[Policy], path: Path, runnables: Mapping[str, Any]) -> Policy:
    """Read a policy of this class from a YAML or JSON file; see `RoutingPolicy.load`.

    Nothing that the file names is imported, and no queue is opened, before the whole file is valid.

    Raises:
        PolicyError: the file is missing, or something in it can't be used.
    """
    values = _read_values(path)
    try:
        kind.model_validate(_parse_policy(values, _StandIns(runnables)))
        return kind.model_validate(_parse_policy(values, _Named(runnables)))
    except ValidationError as error:
        found = describe_validation_error(error, "the policy")
        raise PolicyError(f"{path}: {found}; fix it") from error
    except (InputError, TypeError, ValueError) as error:
        found = " ".join(str(error).split())[:_LONGEST_REASON]
        raise PolicyError(f"{path}: {found}") from error
    except RecursionError as error:
        raise _make_nesting_error(path) from error


def write_policy(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a policy as JSON, for `read_policy` to read back.

    Args:
        path: the file, which is replaced if it exists.
        settings: the contents of a policy file, with runnables by their names.

    Raises:
        InputError: the file can't be written.
    """
    try:
        write_text(path, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(
            f"{path}: expected to write the policy, found: {found}; fix the path"
        ) from error


def _read_values(path: Path) -> dict[Any, Any]:
    try:
        # A pipe would wait for its writer for ever. Links are followed, since the file is the user's own choice.
        check_plain_file(path.resolve(), _MOST_BYTES)
        # JSON is YAML too.
        values = yaml.load(path.read_text("utf-8"), _UniqueKeyLoader)
    except OSError as error:
        found = error.strerror or str(error)
        raise PolicyError(
            f"{path}: expected a policy file to read, found: {found}; check the path"
        ) from error
    except RecursionError as error:
        raise _make_nesting_error(path) from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        found = " ".join(str(error).split())[:_LONGEST_REASON]
        raise PolicyError(
            f"{path}: expected YAML or JSON in UTF-8, found: {found}; fix the file"
        ) from error
    if not isinstance(values, dict):
        found = _describe_type(values)
        raise PolicyError(
            f"{path}: expected a mapping of settings, found {found}; write for example `threshold: 0.8`"
        )
    return values


def _parse_policy(values: dict[Any, Any], names: _Named) -> dict[Any, Any]:
    """Turn bands, routes, budget and timeouts into objects, and leave all other settings alone."""
    settings = dict(values)
    if "bands" in settings:
        bands = _require_list(settings["bands"], "bands")
        settings["bands"] = tuple(_parse_band(band, names) for band in bands)
    for name in ("otherwise", "declined"):
        if settings.get(name) is not None:
            settings[name] = _parse_routes(settings[name], names)
    if "budget" in settings:
        settings["budget"] = Budget(**_require_mapping(settings["budget"], "budget"))
    if "timeouts" in settings:
        settings["timeouts"] = Timeouts(**_require_mapping(settings["timeouts"], "timeouts"))
    return settings


def _parse_band(value: Any, names: _Named) -> Band:
    fields = _require_mapping(value, "a band")
    if set(fields) != {"at_least", "route"}:
        found = ", ".join(map(str, fields)) or "none"
        raise PolicyError(
            f"expected a band to have the keys at_least and route, found {found}; name these two"
        )
    return Band(fields["at_least"], _parse_routes(fields["route"], names))


def _parse_routes(value: Any, names: _Named) -> tuple[Route, ...]:
    routes = value if isinstance(value, list) else [value]
    return tuple(_parse_route(route, names) for route in routes)


def _parse_route(value: Any, names: _Named) -> Route:
    """Make a route from its name alone, its name with its settings, or its name with its main setting."""
    name, settings = _split_route(value)
    if not isinstance(settings, dict):
        settings = {_MAIN_SETTING.get(name, ""): settings}
    fields = dict(settings)
    for key in _SETTINGS_BY_NAME:
        if key in fields:
            fields[key] = names.resolve(fields[key])
    if "queue" in fields:
        fields["queue"] = names.find_queue(fields["queue"])
    if fields.get("otherwise") is not None:
        fields["otherwise"] = _parse_route(fields["otherwise"], names)
    route: Route = _ROUTES[name](**fields)
    return route


def _split_route(value: Any) -> tuple[str, Any]:
    """Return the name of a route and its settings in the file."""
    named = {value: {}} if isinstance(value, str) else value
    if not isinstance(named, dict):
        raise _make_route_error(_describe_type(value))
    names = list(named)
    if len(names) != 1 or names[0] not in _ROUTES:
        raise _make_route_error(", ".join(map(str, names)))
    return names[0], named[names[0]]


def _make_route_error(found: str) -> PolicyError:
    return PolicyError(f"expected one of the routes {', '.join(_ROUTES)}, found {found}; name one")


def _require_mapping(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        found = _describe_type(value)
        raise PolicyError(
            f"expected {what} to be a mapping, found {found}; write its settings as key: value"
        )
    return value


def _require_list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        found = _describe_type(value)
        raise PolicyError(f"expected {what} to be a list, found {found}; begin each with a dash")
    return value


def _describe_type(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _make_nesting_error(path: Path) -> PolicyError:
    return PolicyError(
        f"{path}: expected a policy, found values that are nested too deeply; fix the file"
    )
