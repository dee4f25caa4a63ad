"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A head, a rule and a line for each row; a bar within a cell ends none."""
    line = lambda cells: " | ".join(cell.replace("|", r"\|") for cell in cells).join(("| ", " |"))
    return "\n".join([line(heads), "|---" * len(heads) + "|", *map(line, rows)])
