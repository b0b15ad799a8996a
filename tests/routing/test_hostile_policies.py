"""Policies from strangers: each is a one-line error, and nothing that they name is imported or opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

from aspire_guard import PolicyError, RoutingPolicy
from tests.hostile_texts import altered_texts

HOSTILE = {
    "repeated key": "threshold: 0.9\nthreshold: 0.0\n",
    "repeated key in JSON": '{"threshold": 0.9, "threshold": 0.0}',
    "repeated inner key": "budget: {hops: 1, hops: 9}\n",
    "deep list": "[" * 5000 + "]" * 5000,
    "deep mapping": '{"a":' * 5000 + "1" + "}" * 5000,
    "python tag": "threshold: !!python/object/apply:os.system ['true']\n",
    "recursive alias": "bands: &a [*a]\n",
    "list as key": "? [1]\n: 2\n",
    "alias bomb": "a: &a [1, 1]\nb: &b [*a, *a]\nbands: [*b, *b]\n",
    "nul": "threshold: \x00\n",
    "not a number": "threshold: .nan\n",
    "number as name": "bands: [{at_least: 0, route: {fallback: 7}}]\n",
    "list as name": "bands: [{at_least: 0, route: {fallback: [canary]}}]\n",
    "exit on import": "bands: [{at_least: 0, route: {fallback: 'ending:chain'}}]\n",
    "canary in an invalid file": (
        "bands: [{at_least: 0, route: {fallback: 'canary:chain'}}]\nunknown: 1\n"
    ),
    "canary below the bands": (
        "bands: [{at_least: 7, route: [{custom: 'canary:run'}, accept]}]\nthreshold: 2\n"
    ),
    "queue in an invalid file": (
        "bands: [{at_least: 0, route: {human_review: 'sqlite:///canary.db'}}]\nunknown: 1\n"
    ),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_policy_is_one_line(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file. No module of an invalid file is imported, and no database is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("canary.py").write_text("chain = run = print", encoding="utf-8")
    Path("ending.py").write_text("import sys\nsys.exit(0)", encoding="utf-8")
    path = tmp_path / "policy.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PolicyError) as error:
        RoutingPolicy.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "canary" not in sys.modules
    assert not Path("canary.db").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge"])
def test_a_policy_that_is_no_usual_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    """A pipe would wait for a writer, and a file of a terabyte for memory."""
    path = tmp_path / "policy.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(PolicyError, match=r"policy\.yaml: expected"):
        RoutingPolicy.load(path)


POLICY = """\
threshold: 0.8
bands:
  - at_least: 0.9
    route: accept
  - at_least: 0.5
    route: [{human_review: {queue: "sqlite:///canary.db", wait: 60}}, {fallback: "canary:chain"}]
otherwise: {abstain: I don't know.}
budget: {hops: 2, seconds: 20}
timeouts: {chain: 30}
"""


@settings(max_examples=60, deadline=5000)
@given(altered_texts(POLICY))
def test_an_altered_policy_is_one_line_or_loads(content: str) -> None:
    """Whatever is changed, a policy that can't be used imports nothing."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        Path("canary.py").write_text("chain = run = print", encoding="utf-8")
        path = Path(folder, "policy.yaml")
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        error = None
        try:
            RoutingPolicy.load(path)
        except PolicyError as refusal:
            error = str(refusal)
        is_imported = sys.modules.pop("canary", None) is not None
        if error is not None:
            assert str(path) in error
            assert "\n" not in error
            assert not is_imported
            assert not Path("canary.db").exists()
