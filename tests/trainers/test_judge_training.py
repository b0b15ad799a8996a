"""A judge from labelled answers to an evaluator folder, killed and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from aspire_guard import AspireGuard, Exchange, SelfEvaluator
from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import read_manifest
from aspire_guard.lm.base_model import fingerprint, load_base_model
from aspire_guard.testing import ScriptedChatModel
from aspire_integrations.chat_model import AspireChatModel
from aspire_trainers import judge_training
from aspire_trainers.config import JudgeConfig

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

NAMES = ["Ada", "Bob", "Eve", "Ida", "Kai", "Leo", "Mia", "Ned"]
CONTEXT = "Ada keeps key 7 in the red box."
RIGHT = "Ada keeps it in the red box."


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right answers out of a context, and wrong ones out of nowhere. Some label their sentences."""
    lines: list[str] = []
    for number in range(96):
        name = NAMES[number % len(NAMES)]
        context = f"{name} keeps key {number} in the red box."
        for correct in (True, False):
            answer = f"{name} keeps it in the red box." if correct else "Zoe sold all of it."
            line: dict[str, object] = {
                "question": "Who?",
                "context": context,
                "answer": answer,
                "correct": correct,
            }
            if number % 2:
                line["sentences"] = [{"start": 0, "end": len(answer), "correct": correct}]
            lines.append(json.dumps(line) + "\n")
    path = tmp_path_factory.mktemp("rated") / "rated.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(base: Path) -> JudgeConfig:
    return JudgeConfig(
        model=str(base),
        text=" Right?",
        rank=2,
        first_layer=1,
        validation_share=0.4,
        validate_every=5,
        checkpoint_every=1,
        correct=" correct",
        wrong=" wrong",
    )


@pytest.fixture(scope="module")
def judge(rated: Path, config: JudgeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("judge") / "judge"
    judge_training.train_judge([rated], folder, config)
    return folder


def test_a_judge_scores_the_answers_of_any_chain(judge: Path, base: Path) -> None:
    """It loads like any evaluator. A right answer has more confidence than a wrong one, in any batch."""
    evaluator = SelfEvaluator.from_pretrained(judge)
    assert evaluator.aspire.reach == "all"
    exchanges = [
        Exchange(question="Who?", context=CONTEXT, answer=answer)
        for answer in (RIGHT, "Zoe sold all of it.")
    ]
    right, wrong = evaluator.score(exchanges)
    assert right.confidence > wrong.confidence
    assert evaluator.score(exchanges[:1])[0].confidence == pytest.approx(right.confidence, abs=1e-4)
    assert fingerprint(load_base_model(str(base))) == evaluator.manifest.base_model.fingerprint


def test_a_growing_answer_is_judged_as_the_finished_one(judge: Path) -> None:
    """Sentence release decides by the same numbers."""
    evaluator = SelfEvaluator.from_pretrained(judge)
    extend = evaluator.score_incrementally("Who?", CONTEXT)
    extend("Ada keeps it.")
    found = extend(" Zoe sold all.")
    exchange = Exchange(question="Who?", context=CONTEXT, answer="Ada keeps it. Zoe sold all.")
    (expected,) = evaluator.score([exchange])
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-4)


def test_a_judge_guards_a_chain_and_answers_nothing_itself(judge: Path) -> None:
    """The chat model refuses it at once, and so does its own `answer`."""
    evaluator = SelfEvaluator.from_pretrained(judge)
    chain = ScriptedChatModel(RIGHT)
    verdict = AspireGuard(chain, evaluator=evaluator).judge("Who keeps key 7?")
    assert verdict.confidence is not None
    with pytest.raises(InputError, match="only judges the answers of other models"):
        AspireChatModel(evaluator)
    with pytest.raises(InputError, match="only judges the answers of other models"):
        evaluator.answer("Who?", CONTEXT)


def test_a_killed_run_continues_and_ends_with_the_same_weights(
    judge: Path,
    rated: Path,
    config: JudgeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its work lies next to the output until it has ended. A finished run is left as it is."""
    output = tmp_path / "again"
    checkpoint = tmp_path / ".again.work" / "judge.safetensors"

    class Killed(BaseException):
        pass

    def note(self: object, *_: object) -> None:
        if checkpoint.exists():
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("aspire_trainers.run.progress.Progress.note_validation", note)
        with pytest.raises(Killed):
            judge_training.train_judge([rated], output, config)
    assert checkpoint.exists()
    judge_training.train_judge([rated], output, config)
    found = load_file(output / "self_eval" / "adapter_model.safetensors")
    expected = load_file(judge / "self_eval" / "adapter_model.safetensors")
    assert all(found[name].equal(weights) for name, weights in expected.items())
    assert found.keys() == expected.keys()
    assert not checkpoint.exists()
    before = (output / "aspire.json").read_bytes()
    judge_training.train_judge([rated], output, config)
    assert (output / "aspire.json").read_bytes() == before


def test_other_settings_do_not_replace_a_judge(
    judge: Path, rated: Path, config: JudgeConfig
) -> None:
    """Training again with another seed needs another output."""
    with pytest.raises(InputError, match="expected a new folder, found another evaluator"):
        judge_training.train_judge([rated], judge, config.model_copy(update={"seed": 1}))


def test_the_command_trains_a_judge_that_fit_takes(
    rated: Path, base: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """The recipe sets what no option sets. `fit` keeps the judge and its reach."""
    recipe = tmp_path / "judge.toml"
    recipe.write_text('text = " Right?"\nrank = 2\nvalidation_share = 0.4\n', encoding="utf-8")
    output, fitted = tmp_path / "judge", tmp_path / "fitted"
    options = ("--recipe", recipe, "--model", base, "--output", output)
    assert run_command("train-judge", rated, *options) == 0
    assert "a judge on" in capsys.readouterr().out
    assert run_command("fit", rated, "--evaluator", output, "--output", fitted) == 0
    assert read_manifest(fitted).methods.reach == "all"
