"""Recipes that were altered at random places: each is a one-line error, or a recipe."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings

from aspire_guard.errors import InputError
from aspire_trainers.config import JudgeConfig, TrainingConfig
from tests.hostile_texts import altered_texts

RECIPE = """\
seed = 1
limit = 300
correctness = { method = "rouge_l", threshold = 0.7 }

[task]
method = "lora"
target_modules = "all-linear"
learning_rate = 0.01

[sampling]
k = 10

[self_evaluation]
text = "Correct?"
epochs = 2
"""
JUDGE = 'text = "Right?"\nrank = 4\nlimit = 100\nattribution = "ours"\nlearning_rate = 1e-3\n'


def is_read_or_refused(kind: type[TrainingConfig | JudgeConfig], content: str) -> bool:
    """Tell whether a recipe is read, or refused by one line that names the file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "recipe.toml")
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            kind.load(path)
        except InputError as error:
            return str(path) in str(error) and "\n" not in str(error)
        return True


@settings(max_examples=60, deadline=5000)
@given(altered_texts(RECIPE))
def test_an_altered_recipe_is_one_line_or_a_recipe(content: str) -> None:
    """No other error comes out, however deep, long or odd the recipe is."""
    assert is_read_or_refused(TrainingConfig, content)


@settings(max_examples=60, deadline=5000)
@given(altered_texts(JUDGE))
def test_an_altered_judge_recipe_is_one_line_or_a_recipe(content: str) -> None:
    """The settings of a judge are read by the same rules."""
    assert is_read_or_refused(JudgeConfig, content)
