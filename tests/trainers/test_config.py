"""The settings of a run and the recipe file that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from aspire_guard.errors import InputError
from aspire_trainers.config import JudgeConfig, SamplingConfig, TaskTuningConfig, TrainingConfig

RECIPE = """
model = "some/model"
seed = 7

[task]
length = 5
epochs = 2

[sampling]
k = 4

[self_evaluation]
answers = 3
text = "Right or wrong?"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_a_recipe_sets_what_it_names_and_leaves_the_rest(recipe: Path) -> None:
    """The tables are the stages, and settings that the recipe does not name keep their defaults."""
    config = TrainingConfig.load(recipe)
    assert (config.model, config.seed, config.validation_share) == ("some/model", 7, 0.1)
    assert (config.task.length, config.task.epochs) == (5, 2)
    assert config.task.learning_rate == TrainingConfig().task.learning_rate
    assert config.sampling == SamplingConfig(k=4)
    assert (config.self_evaluation.answers, config.self_evaluation.text) == (3, "Right or wrong?")


def test_options_given_win_over_the_recipe(recipe: Path) -> None:
    """An option that was not given is None, and does not win."""
    config = TrainingConfig.load(recipe, seed=1, limit=300, model=None)
    assert (config.seed, config.limit, config.model) == (1, 300, "some/model")


def test_without_a_recipe_there_are_the_defaults() -> None:
    """Options win over them too."""
    assert TrainingConfig.load() == TrainingConfig()
    assert TrainingConfig.load(seed=4, limit=None) == TrainingConfig(seed=4)


def test_a_wrong_option_is_named_without_a_recipe() -> None:
    """The message does not name a file, because there is none."""
    with pytest.raises(
        InputError,
        match=r"^options: expected valid settings, found limit: Input should be .*; fix it",
    ):
        TrainingConfig.load(limit=0)


def test_the_settings_survive_json() -> None:
    """They are compared in this form with the settings of an unfinished run."""
    config = TrainingConfig(seed=3, limit=10)
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sede = 1", "sede: Extra inputs are not permitted"),
        ("[task]\nlenght = 5", r"task\.lenght: Extra inputs are not permitted"),
        ("[sampling]\nk = 1", r"sampling\.k: Input should be greater than or equal to 2"),
        ("[self_evaluation]\npersuasion = 1.5", r"self_evaluation\.persuasion"),
        ("validation_share = 1.0", "validation_share"),
        (
            '[correctness]\nmethod = "bleu"',
            r"correctness\.method: Value error, expected rouge_l, .* found 'bleu'",
        ),
        (
            '[correctness]\nmethod = "exact_match"\nthreshold = 0.5',
            r"correctness\.threshold: .*found one with exact_match",
        ),
    ],
)
def test_a_recipe_with_a_wrong_setting_names_it(recipe: Path, text: str, found: str) -> None:
    """The error names the file, the setting and what is wrong with it."""
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"recipe\.toml: expected valid settings, found {found}.*; fix it"
    ):
        TrainingConfig.load(recipe)


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe"], ids=["not TOML", "not UTF-8"])
def test_a_file_that_is_not_a_recipe_is_an_input_error(recipe: Path, content: bytes) -> None:
    """The error names the file."""
    recipe.write_bytes(content)
    with pytest.raises(
        InputError, match=r"recipe\.toml: expected a recipe in TOML, found: .*; fix it or its path"
    ):
        TrainingConfig.load(recipe)


def test_a_missing_recipe_is_an_input_error(tmp_path: Path) -> None:
    """A folder is not a recipe either."""
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(InputError, match="expected a recipe in TOML, found"):
            TrainingConfig.load(path)


def test_a_refusal_must_count_as_declining() -> None:
    """Otherwise θp would learn an answer that is graded wrong."""
    for refusal in (None, "unanswerable", "I don't know."):
        assert TaskTuningConfig(refusal=refusal).refusal == refusal
    for refusal in ("", " ", "ask the harbour master"):
        with pytest.raises(ValidationError, match="expected words that count as declining"):
            TaskTuningConfig(refusal=refusal)


@pytest.mark.parametrize(
    "recipe", sorted((Path(__file__).parents[2] / "trainers" / "recipes").glob("*.toml"))
)
def test_every_recipe_of_ours_loads(recipe: Path) -> None:
    """A recipe with an unknown setting would fail for everyone who follows the docs."""
    kind = JudgeConfig if recipe.stem == "judge" else TrainingConfig
    assert kind.load(recipe).seed >= 0
