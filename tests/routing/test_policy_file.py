"""Policies from YAML and JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from aspire_guard.errors import PolicyError
from aspire_guard.review.queue import ReviewQueue
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Budget,
    Fallback,
    HumanReview,
    Timeouts,
)

LARGE: RunnableLambda[str, str] = RunnableLambda(lambda question: "Ada")

WHOLE = """
bands:
  - {at_least: accept, route: accept}
  - at_least: 0.4
    route:
      - fallback: {runnable: large, timeout: 20, retries: 2, cost: 3, name: the large one}
      - fallback: large
  - at_least: 0
    route: {abstain: Please ask at the desk.}
threshold: 0.8
budget: {hops: 2, cost: 5}
timeouts: {chain: 10, overall: 30}
on_chain_error: fallback
group_by: tenant
thresholds: {acme: 0.9}
"""


def load(
    folder: Path, text: str, runnables: dict[str, Any] | None = None, name: str = "policy.yaml"
) -> RoutingPolicy:
    (folder / name).write_text(text, "utf-8")
    return RoutingPolicy.load(folder / name, runnables)


def test_a_policy_from_yaml_is_the_one_from_code(tmp_path: Path) -> None:
    """Every setting arrives, and runnables are found by their names."""
    assert load(tmp_path, WHOLE, {"large": LARGE}) == RoutingPolicy(
        bands=(
            Band("accept", Accept()),
            Band(
                0.4,
                (
                    Fallback(LARGE, timeout=20, retries=2, cost=3, name="the large one"),
                    Fallback(LARGE),
                ),
            ),
            Band(0, Abstain("Please ask at the desk.")),
        ),
        threshold=0.8,
        budget=Budget(hops=2, cost=5),
        timeouts=Timeouts(chain=10, overall=30),
        on_chain_error="fallback",
        group_by="tenant",
        thresholds={"acme": 0.9},
    )


def test_json_is_read_too(tmp_path: Path) -> None:
    """A program may write the file as JSON."""
    text = json.dumps({"threshold": 0.75, "otherwise": [{"fallback": "large"}, "abstain"]})
    policy = load(tmp_path, text, {"large": LARGE}, "policy.json")
    assert policy == RoutingPolicy(threshold=0.75, otherwise=(Fallback(LARGE), Abstain()))


def test_a_queue_is_given_by_its_url(tmp_path: Path) -> None:
    """A review may also say what follows if nobody decides."""
    url = f"sqlite:///{tmp_path}/reviews.db"
    text = (
        f"otherwise: {{human_review: {{queue: '{url}', wait: 60, otherwise: {{abstain: Later.}}}}}}"
    )
    (route,) = _otherwise(load(tmp_path, text))
    assert isinstance(route, HumanReview)
    assert isinstance(route.queue, ReviewQueue)
    assert (repr(route.queue), route.wait, route.otherwise) == (
        f"ReviewQueue('{url}')",
        60,
        Abstain("Later."),
    )


def test_a_queue_is_given_by_its_settings(tmp_path: Path) -> None:
    """The keys of the call's metadata that the reviewer sees are a list."""
    url = f"sqlite:///{tmp_path}/reviews.db"
    text = f"otherwise: {{human_review: {{queue: {{url: '{url}', expire_after: 60}}, metadata: [user]}}}}"
    (route,) = _otherwise(load(tmp_path, text))
    assert repr(route.queue) == f"ReviewQueue('{url}')"
    assert (route.queue.settings.expire_after, route.metadata) == (60, ("user",))


def _otherwise(policy: RoutingPolicy) -> Any:
    return policy.otherwise


def test_functions_and_runnables_are_imported_by_their_names(tmp_path: Path) -> None:
    """A name is package.module:name, and a plain function becomes a runnable."""
    policy = load(tmp_path, "otherwise: [{custom: 'json:dumps'}, {fallback: 'os.path:basename'}]")
    custom, fallback = _otherwise(policy)
    assert custom.function is json.dumps
    assert fallback.runnable.invoke("a/b") == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold: 0.5", "treshold: Extra inputs are not permitted"),
        ("[1]", "expected a mapping of settings, found a list"),
        ("", "expected a mapping of settings, found nothing"),
        ("threshold: [", "expected YAML or JSON in UTF-8, found: while parsing"),
        (
            "otherwise: aproval",
            "expected one of the routes accept, abstain, fallback, human_review, custom, found aproval",
        ),
        ("otherwise: {approve: 1, abstain: 2}", "found approve, abstain; name one"),
        (
            "otherwise: {fallback: small}",
            r"expected the name of something to import, found 'small'; .*\(given: none\)",
        ),
        ("otherwise: {fallback: 'json:dump_all'}", "expected 'json:dump_all' to be importable"),
        ("bands: 3", "expected bands to be a list, found a value of type int"),
        (
            "bands: [{at_least: 0}]",
            "expected a band to have the keys at_least and route, found at_least",
        ),
        ("budget: {hops: -1}", "hops: Input should be greater than or equal to 0"),
        ("timeouts: {chain: soon}", "chain: Input should be a valid number"),
        ("bands: [{at_least: 0.5, route: accept}]", "let the last one have at_least=0"),
    ],
)
def test_every_mistake_is_explained_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, what was expected and what was found, in one line."""
    with pytest.raises(PolicyError, match=message) as raised:
        load(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path}/policy.yaml: ")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(
        PolicyError, match=r"none.yaml: expected a policy file to read, found: No such file"
    ):
        RoutingPolicy.load(tmp_path / "none.yaml")
