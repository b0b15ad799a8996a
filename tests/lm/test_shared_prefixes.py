"""Which contexts are turns of one conversation."""

from __future__ import annotations

from itertools import permutations

from aspire_guard.lm.shared_prefixes import find_first_turns


def test_a_context_that_goes_on_after_a_line_break_belongs_to_the_first_turn() -> None:
    """In any order, however many turns lie between; a conversation may branch."""
    turns = ("A story.", "A story.\nQ: Who?", "A story.\nQ: Who?\nA: Ada", "A story.\n\nQ: When?")
    for order in permutations(turns):
        assert find_first_turns(order) == dict.fromkeys(turns, "A story.")


def test_other_contexts_stand_alone() -> None:
    """To begin alike is not enough, nor to go on within the line; nothing belongs to the missing context."""
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
