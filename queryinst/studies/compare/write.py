"""The files of a comparison: table.csv, table.md, the plots as PNG, and report.html, one page that holds everything."""

import os
from pathlib import Path

import jinja2
from markupsafe import Markup

from queryinst.errors import UserError
from queryinst.studies.compare import table
from queryinst.studies.compare.comparison import Comparison
from queryinst.studies.compare.groups import KINDS
from queryinst.visualize import plots

PAGE = "report.html"


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write all files; plots of an earlier comparison in the same folder go.

    Raises:
        UserError: the folder cannot be written.
    """
    files = {
        "table.csv": table.as_csv(comparison.columns, comparison.rows).encode(),
        "table.md": table.as_markdown(comparison.columns, comparison.rows).encode(),
        **{f"{plot.name}.png": plots.png(plot.figure) for plot in comparison.plots},
        PAGE: page(comparison).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PAGE).is_file():
            for old in folder.glob("*.png"):
                old.unlink()
        for name, content in files.items():
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            os.replace(partial, folder / name)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); give another folder with --to") from None
    return [folder / name for name in files]


def page(comparison: Comparison) -> str:
    """The page as text. Everything that comes from a run is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = [(plot, Markup(plots.svg(plot.figure, f"p{n}"))) for n, plot in enumerate(comparison.plots)]
    return environment.get_template(f"{PAGE}.j2").render(it=comparison, plots=drawn, kinds=KINDS, spread=table.SPREAD)
