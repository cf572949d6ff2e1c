"""`python -m queryinst.compare STUDY`: what did a setting buy? A table, plain statements, plots and a page.

python -m queryinst.compare stages                        the study in outputs/studies/stages
python -m queryinst.compare outputs/shapes-1 outputs/shapes-2      runs
python -m queryinst.compare outputs                       all finished runs below a folder
python -m queryinst.compare stages --wandb                and a W&B run with table and plots

Runs that differ in the seed only are one row: mean and standard deviation. Each row is held against a baseline, and it
is said whether the difference is more than the noise of images (a paired bootstrap) and of seeds.
"""

import argparse
import shlex
import sys
from pathlib import Path

from queryinst.errors import UserError
from queryinst.studies.ending import ending

FEWEST = 100  # resamples that give the ends of an interval


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m queryinst.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("runs", nargs="+", help="studies by name, run folders, folders of run folders, result.json files")
    made.add_argument("--output", type=Path, default=Path("outputs"), help="where studies and runs lie (outputs)")
    made.add_argument("--to", type=Path, help="folder for what is written (OUTPUT/compare/NAME)")
    made.add_argument(
        "--baseline", metavar="LABEL", help="row that the others are held against (that of the first run)"
    )
    made.add_argument("--resamples", type=int, default=1000, help="of the validation images, for the noise (1000)")
    online = made.add_argument_group("Weights & Biases")
    online.add_argument("--wandb", action="store_true", help="log table and plots as a run; offline without an account")
    online.add_argument(
        "--report", action="store_true", help="make a workspace and a report of the study; needs an account"
    )
    online.add_argument("--project", default="queryinst", help="project (queryinst)")
    online.add_argument("--entity", help="user or team (the account's own)")
    return made


def main() -> None:
    arguments = parser().parse_args()
    with ending():
        if arguments.resamples < FEWEST:
            raise UserError(f"--resamples must be at least {FEWEST}; got {arguments.resamples}")
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.text import Text

    from queryinst.studies.compare import upload
    from queryinst.studies.compare.comparison import compare, of_name
    from queryinst.studies.compare.runs import find
    from queryinst.studies.compare.say import say
    from queryinst.studies.compare.write import PAGE, write

    if arguments.report:
        upload.require_report()
    found = find(arguments.runs, arguments.output)
    name = of_name(found, arguments.runs)
    command = shlex.join(["python", "-m", "queryinst.compare", *sys.argv[1:]])
    comparison = compare(found, name, command, arguments.baseline, arguments.resamples)
    folder = arguments.to or arguments.output / "compare" / name
    write(comparison, folder)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    say(comparison, console)
    written = ("written: ", (str(folder / PAGE), "bold"), f", table.csv, table.md, {len(comparison.plots)} plots")
    console.print(Text.assemble(*written), soft_wrap=True)
    if arguments.wandb:
        console.print(upload.log(comparison, folder, arguments.project, arguments.entity), soft_wrap=True)
    if arguments.report:
        for line in upload.report(comparison, arguments.project, arguments.entity):
            console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
