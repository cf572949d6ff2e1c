"""What the same minutes of training buy."""

import math
from pathlib import Path

import pytest
from made_runs import make_run

from queryinst.studies.compare import table
from queryinst.studies.compare.groups import group
from queryinst.studies.compare.runs import Run, find

LINES = ["step,train/loss,train/images_per_second,val/segm_AP"]


def learned(output: Path, stages: int, speed: float, points: dict[int, float], seed: int = 0) -> None:
    """A run of 2 images a step at `speed` images a second, evaluated at some steps."""
    folder = make_run(
        output / f"shapes-{stages}{seed}", {"model.num_stages": stages}, seed, config={"data": {"batch_size": 2}}
    )
    lines = [
        *LINES,
        f"0,3.0,{speed / 2},",
        f"20,2.0,{speed * 2 / 3},",
        *(f"{step},,,{ap}" for step, ap in points.items()),
    ]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def columns(output: Path) -> dict[str, list[table.Cell]]:
    found, made = table.rows(group(find([str(output)], output).runs))
    return {column.heading: [row.cells[column.key] for row in made] for column in found}


def test_seconds_a_step_are_the_mean_of_those_logged(tmp_path: Path):
    learned(tmp_path, 1, 8.0, {59: 0.2})
    learned(tmp_path, 2, 2.0, {59: 0.2})
    # 2 images at 4 and at 16 / 3 images a second
    assert [cell.mean for cell in columns(tmp_path)["seconds a step"]] == pytest.approx([0.4375, 1.75])


def test_the_curves_are_read_where_the_shortest_training_ends(tmp_path: Path):
    learned(tmp_path, 1, 8.0, {29: 0.2, 59: 0.4})  # done after 60 * 0.4375 s
    learned(tmp_path, 2, 2.0, {29: 0.5, 59: 0.6})  # has then made 15 of its steps, half of the way to its first point
    cells = columns(tmp_path)["mask AP at 0.4 min"]
    assert [cell.mean for cell in cells] == pytest.approx([0.4, 0.25])


def test_seeds_are_averaged_and_the_shortest_is_a_mean_over_them(tmp_path: Path):
    for seed, speed in enumerate((8.0, 4.0)):  # 26.25 and 52.5 s
        learned(tmp_path, 1, speed, {59: 0.4}, seed)
        learned(tmp_path, 2, 0.8, {59: 0.6}, seed)  # 262.5 s
    first, second = columns(tmp_path)["mask AP at 0.7 min"]
    assert [first.mean, second.mean] == pytest.approx([(0.4 + 0.4 * 39.375 / 52.5) / 2, 0.6 * 39.375 / 262.5])
    assert second.spread == 0


@pytest.mark.parametrize("how", ["no file", "no speed", "no evaluation"])
def test_without_a_curve_there_is_no_such_column(tmp_path: Path, how: str):
    learned(tmp_path, 1, 8.0, {59: 0.4})
    learned(tmp_path, 2, 8.0, {59: 0.4})
    curves = tmp_path / "shapes-20" / "metrics.csv"
    if how == "no file":
        curves.unlink()
    elif how == "no speed":
        curves.write_text("step,train/loss,val/segm_AP\n59,,0.4\n")
    else:
        curves.write_text(f"{LINES[0]}\n0,3.0,4.0,\n")
    found = columns(tmp_path)
    assert not [heading for heading in found if heading.startswith("mask AP at")]
    assert math.isnan(Run(tmp_path, {"config": {}}).seconds_per_step)
