"""Contexts that are turns of one conversation, and token sequences with a common prefix."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from aspire_guard.lm.shared_prefixes import count_common_prefix, find_first_turns


def test_a_context_that_goes_on_after_a_line_break_belongs_to_the_first_turn() -> None:
    """This holds in any order, however many turns lie between. A conversation may branch."""
    turns = ("A story.", "A story.\nQ: Who?", "A story.\nQ: Who?\nA: Ada", "A story.\n\nQ: When?")
    for order in permutations(turns):
        assert find_first_turns(order) == dict.fromkeys(turns, "A story.")


def test_other_contexts_are_on_their_own() -> None:
    """A common beginning is not enough, nor a continuation within the line. Nothing belongs to the missing context."""
    contexts = [
        None,
        "",
        "A story",
        "A story.",
        "A story\ttold.",
        "A story!\nQ: Who?",
        "Another story.",
    ]
    assert find_first_turns(contexts) == {context: context for context in contexts}
    assert find_first_turns([*contexts, "A story\nQ: Who?"])["A story\nQ: Who?"] == "A story"


@pytest.mark.parametrize(
    ("others", "expected"), [([], 0), ([1, 2], 2), ([1, 2, 3, 4], 3), ([1, 9, 3], 1)]
)
def test_a_common_prefix_ends_at_the_first_difference(others: list[int], expected: int) -> None:
    """Equal tokens after a difference don't count, and one sequence may be longer."""
    assert count_common_prefix(torch.tensor([1, 2, 3]), torch.tensor(others)) == expected
