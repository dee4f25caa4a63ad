"""Tables in Markdown."""

from score_jax import markdown


def test_a_bar_within_a_cell_ends_none():
    assert markdown.table(["", "a|b"], [["x", "1"], ["y|z", "2"]]) == (
        "|  | a\\|b |\n|---|---|\n| x | 1 |\n| y\\|z | 2 |"
    )
