"""Weights & Biases: the comparison as a run of its own, and a workspace and a report of the study's runs."""

import importlib.util
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queryinst.errors import UserError
from queryinst.studies.compare.comparison import Comparison

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces import Workspace

CURVES = ("val/segm_AP", "val/bbox_AP", "train/loss")
STEP, BAR = "trainer/global_step", "val/segm_AP"  # what the logger of a run calls them
LONGEST = 128  # characters of a report's title


def log(comparison: Comparison, folder: Path, project: str, entity: str | None) -> str:
    """Log table, plots and statements as one run with the job type `compare`, grouped under the comparison's name.

    Without an account the run is kept offline in `folder`.

    Returns:
        a sentence on where it is.

    Raises:
        UserError: W&B does not take it.
    """
    from queryinst.lightning.loggers import switched_off

    if switched_off():
        return f"W&B: left out, as {switched_off()} says"
    import wandb

    online = _account()
    try:
        run = wandb.init(
            project=project,
            entity=entity,
            dir=folder.resolve(),  # the service that writes it may have been started elsewhere
            mode="online" if online else "offline",
            name=f"compare {comparison.name}",
            group=comparison.name,
            job_type="compare",
            settings=wandb.Settings(silent=True),
            config={
                "command": comparison.command,
                "baseline": comparison.base.label,
                "runs": [run.result["id"] for _, run in comparison.runs],
            },
        )
    except wandb.Error as error:
        raise UserError(f"W&B does not take the comparison ({error}); everything is in {folder} all the same") from None
    pictures = {f"plots/{plot.name}": wandb.Image(str(folder / f"{plot.name}.png")) for plot in comparison.plots}
    run.log({"table": _table(comparison), **pictures})
    for row in comparison.rows:
        value = row.cells["segm_AP"].mean
        run.summary[f"segm_AP/{row.group.label}"] = None if math.isnan(value) else value
    run.summary["statements"] = [f"{one.group.label}: {one.sentence}" for one in comparison.differences]
    kept, where = Path(run.dir).parent, run.url if online else ""
    wandb.finish()
    return f"W&B: {where}" if online else f"W&B: no account, so kept offline; `wandb sync {kept}` uploads it"


def _account() -> bool:
    from queryinst.lightning.loggers import has_account

    return has_account()


def _table(comparison: Comparison) -> Any:
    import wandb

    numbers = [(column, what) for column in comparison.columns for what in ("mean", "sd")]
    table = wandb.Table(columns=["group", "seeds", *(f"{column.key} {what}" for column, what in numbers)])
    for row in comparison.rows:
        cells = [row.cells[column.key] for column, _ in numbers]
        values = [cell.mean if what == "mean" else cell.spread for cell, (_, what) in zip(cells, numbers, strict=True)]
        table.add_data(row.group.label, len(row.group.runs), *(None if math.isnan(v) else v for v in values))
    return table


def require_report() -> None:
    """Raises UserError where a report cannot be made: no package for it, or no account."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("--report needs the package wandb-workspaces: pip install 'queryinst[report]'")
    if not _account():
        raise UserError(
            "--report needs a W&B account, for a report lies on its server: run `wandb login`, or leave --report out "
            "(report.html is made without an account)"
        )


def report(comparison: Comparison, project: str, entity: str | None) -> list[str]:
    """Make a workspace and a report of the compared runs on W&B; a line on each. Raises UserError where W&B refuses."""
    import wandb

    try:
        owner = str(entity or wandb.Api().default_entity)
        space, page = workspace(comparison, project, owner), document(comparison, project, owner)
        saved: list[Any] = [space, page]
        for made in saved:
            made.save()
    except (wandb.Error, OSError, ValueError) as error:
        raise UserError(f"W&B does not take the report ({error}); report.html has the same") from None
    return [f"W&B workspace: {space.url}", f"W&B report: {page.url}"]


def workspace(comparison: Comparison, project: str, entity: str) -> "Workspace":
    """A view of the project with the compared runs alone: curves, final AP by group. Not saved."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"compare {comparison.name}",
        sections=[
            ws.Section(name="Curves", panels=[_curve(metric) for metric in CURVES], is_open=True),
            ws.Section(name="Result", panels=[_bars()], is_open=True),
        ],
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("ID").isin(_ids(comparison))),
            groupby=[expr.Config(key) for key in _keys(comparison)],
            pinned_columns=[f"summary:{BAR}"],
        ),
        settings=ws.WorkspaceSettings(max_runs=max(10, len(comparison.runs))),
    )


def document(comparison: Comparison, project: str, entity: str) -> "Report":
    """A report: the statements, the table, and the panels of the workspace over the same runs. Not saved."""
    import wandb_workspaces.reports.v2.interface as wr

    from queryinst.studies.compare.table import as_markdown

    runs = wr.Runset(
        entity=entity,
        project=project,
        name=comparison.name,
        filters=f"Metric('ID') in {json.dumps(_ids(comparison))}",
        groupby=[f"config.{key}" for key in _keys(comparison)],
    )
    statements: list[Any] = [f"{one.group.label}: {one.sentence}" for one in comparison.differences]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{comparison.name}: what did it buy?"[:LONGEST],
        description=comparison.command,
        blocks=[
            wr.H2(f"Against {comparison.base.label}"),
            wr.UnorderedList(statements or ["There is one group: nothing to hold it against."]),
            wr.H2("Table"),
            wr.MarkdownBlock(as_markdown(comparison.columns, comparison.rows)),
            wr.H2("Runs"),
            wr.PanelGrid(runsets=[runs], panels=[*(_curve(metric) for metric in CURVES), _bars()]),
            wr.UnorderedList([*comparison.warnings, *comparison.notes] or ["Nothing to add."]),
        ],
    )


def _ids(comparison: Comparison) -> list[str]:
    return [str(run.result["id"]) for _, run in comparison.runs]


def _keys(comparison: Comparison) -> list[str]:
    """The settings that vary, as W&B stores what the loggers of the runs gave it: a flat key with dots in it."""
    return [f"{key}.value" for key in comparison.groups[0].keys]


def _curve(metric: str) -> Any:
    import wandb_workspaces.reports.v2.interface as wr

    return wr.LinePlot(title=metric, x=STEP, y=[metric], groupby_aggfunc="mean", groupby_rangefunc="stddev")


def _bars() -> Any:
    import wandb_workspaces.reports.v2.interface as wr

    return wr.BarPlot(title=f"{BAR}, last", metrics=[BAR], groupby_aggfunc="mean", groupby_rangefunc="stddev")
