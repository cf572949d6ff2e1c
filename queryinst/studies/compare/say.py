"""A comparison in a terminal."""

from rich.console import Console
from rich.text import Text

from queryinst.studies.compare import table
from queryinst.studies.compare.comparison import Comparison
from queryinst.studies.compare.noise import Verdict

PAINT = {Verdict.BETTER: "green", Verdict.WORSE: "red", Verdict.WITHIN: "", Verdict.UNKNOWN: "yellow"}


def say(comparison: Comparison, console: Console) -> None:
    """Print the table, a statement for each difference, and what to keep in mind, on a console without markup."""
    console.print(table.for_terminal(comparison.columns, comparison.rows))
    console.print()
    if comparison.differences:
        console.print(f"Against {comparison.base.label}:", soft_wrap=True)
    for one in comparison.differences:
        console.print(
            Text.assemble((f"  {one.group.label}: ", "bold"), (one.sentence, PAINT[one.verdict])), soft_wrap=True
        )
    for text in comparison.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)
    for text in (*comparison.notes, *(f"Left out: {text}" for text in comparison.left_out)):
        console.print(Text(text, style="dim"), soft_wrap=True)
    console.print()
