"""What the benchmarks tell, of results made by hand: every number stands where it belongs, in its unit."""

import json
from pathlib import Path
from typing import Any

import pytest

from queryinst.benchmarks import data, evaluation, frame, inference_report, masks, train
from queryinst.benchmarks.step import PARTS

MASKS = {"masks": 5, "ours": 0.002, "plain": 0.0124, "different": 7}
OPENED = {"first time": {"seconds": 12.34, "peak": 3 * 2**29}, "again": {"seconds": 0.56, "peak": 2**30}}
OPENING = {"images": 30, "annotations": 200, "size": 4_600_000, "times": OPENED, "own": 1_000_000, "shared": 5_000_000}
ROW = {"objects": 7, "ours": 30.0, "plain": 12.0, "our_bytes": 2500.0, "plain_bytes": 50_000.0}


def ways() -> dict[str, Any]:
    """Each way with its own seconds a part and operations, so that none can stand for another."""
    made = {}
    for place, way in enumerate(inference_report.WAYS, 1):
        parts = {part: 0.001 * place * (number + 1) for number, part in enumerate(inference_report.PARTS)}
        flops = {part: 10**9 * number for number, part in enumerate(inference_report.PARTS)}
        made[way] = {"seconds": 8.0 / place, "parts": parts, "flops": flops}
    return made


def comparison(proposals: int, batch: int) -> dict[str, Any]:
    equality = {"detections": 40, "same": 39, "different_pixels": 3, "pixels": 1000}
    return {"height": 64, "width": 96, "batch": batch, "proposals": proposals, "ways": ways(), "equality": equality}


INFERENCE = {
    "backbone": "resnet50",
    "rounds": 5,
    "peak": {"fp32": 2e11, "bf16": 4e11},
    "comparisons": [comparison(100, 1), comparison(100, 2)],
    "distinct": {"100": {"kept": 61, "fp32": 0.25, "bf16": 0.125}},
    "stages": {"100": [{"stages": 1, "proposals": 100, "fp32": 0.01, "bf16": 0.02}]},
}
STEP = {
    **{"proposals": 100, "precision": "fp32", "compiled": False, "images": 1, "height": 800, "width": 1216},
    **{"objects": 10, "backbone": "resnet50", "device": "cpu", "threads": 2, "rounds": 1},
    **{"seconds": 5.0, "fastest": 4.5, "peak": 3_200_000_000},
    "parts": {part: 0.1 * (number + 1) for number, part in enumerate(PARTS)},
    "memory": {name: 10**6 * (number + 1) for number, name in enumerate(train.MEMORY)},
}
NUMBERS = {"bbox_AP": 0.5, "segm_AP": 0.25}
EVALUATION = {
    **{"images": 12, "objects": 4, "detections": 6, "updating": 1.5},
    "codes": {name: MASKS[name] for name in ("ours", "plain", "different")},
    "computing": {"pycocotools": 9.0, "faster_coco_eval": 3.0},
    "numbers": {"pycocotools": NUMBERS, "faster_coco_eval": NUMBERS | {"segm_AP": 0.25 + 1e-12}},
}


def test_masks():
    assert masks.markdown({"height": 60, "width": 80, "times": [MASKS]}).splitlines() == [
        "Masks to COCO RLE at 60x80, one thread, medians",
        "",
        "| masks | traced | paste and encode | ratio | pixels that differ |",
        "| ----- | -----: | ---------------: | ----: | -----------------: |",
        "| 5     | 2.0 ms |          12.4 ms |  6.2x |         7 of 24000 |",
    ]


def test_data_and_opening_a_file():
    said = data.markdown({"rows": [ROW, {**ROW, "objects": 60, "plain": 60.0}], "opening": OPENING}).splitlines()
    assert said == [
        "ms_crop on 640x480 images, one process, one thread, medians: ours against v2 transforms on full bitmaps",
        "",
        "| objects | images/s | plain | ratio | target kB | plain kB | ratio |",
        "| ------- | -------: | ----: | ----: | --------: | -------: | ----: |",
        "| 7       |     30.0 |  12.0 |  2.5x |       2.5 |       50 | 20.0x |",
        "| 60      |     30.0 |  60.0 |  0.5x |       2.5 |       50 | 20.0x |",
        "",
        "opening 30 images, 200 annotations, 5 MB of JSON",
        "",
        "|            | seconds | peak memory |",
        "| ---------- | ------: | ----------: |",
        "| first time |  12.3 s |    1.50 GiB |",
        "| again      |   0.6 s |    1.00 GiB |",
        "",
        "a loader process that has read all of it holds 1 MB more, and shares 5 MB",
    ]
    assert data.markdown({"rows": [ROW]}).endswith("20.0x |"), "opening is told where it was measured"


def test_evaluation():
    assert evaluation.markdown(EVALUATION).splitlines() == [
        "12 images of 480x640, 4 objects and 6 detections each; medians.",
        "",
        "| step                            |                 plain way |                     here | ratio |",
        "| ------------------------------- | ------------------------: | -----------------------: | ----: |",
        "| 6 masks to run-length codes     | 12.4 ms, paste and encode |           2.0 ms, traced |  6.2x |",
        "| 72 detections to COCO's results |                           |                   1.50 s |       |",
        "| box and mask metrics            |       9.00 s, pycocotools | 3.00 s, faster_coco_eval |  3.0x |",
        "",
        "The two backends give the same 2 numbers to 1e-12 (box AP 0.5000, mask AP 0.2500), and pasting and boxes "
        "differ in 7 pixels.",
    ]


def test_inference():
    said = inference_report.markdown(INFERENCE)
    assert "resnet50, 6 stages, random weights, image to COCO RLE, medians of 5;" in said
    assert said.partition("Measured peak")[2].startswith(
        " of matrix products: 200 GFLOP/s in fp32, 400 in bf16.\n\n| images "
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:2] == "| "]
    assert rows[0][2:] == [*inference_report.WAYS, "same in fp32, differing"]
    for batch, row in ((1, rows[2]), (2, rows[3])):
        ways = ["8.00 s", "4.00 s (2.0x)", "2.67 s (3.0x)", "2.00 s (4.0x)"]
        assert row == [f"64x96, batch {batch}", "100", *ways, "39 of 40, 3 pixels"]
    by_part = {row[0]: row[1:] for row in rows[4:13]}
    assert by_part["normalise"] == ["1", "0", "-", "3", "0", "-", "4", "0", "-"]
    assert by_part["backbone"] == ["2", "1", "250%", "6", "1", "83%", "8", "1", "31%"], "bf16 of its own peak"
    assert by_part["all"] == ["8000", "15", "1%", "2667", "15", "3%", "2000", "15", "2%"]
    assert said.count("By part, 100 proposals, 64x96, batch 1:") == said.count("By part") == 1
    assert (
        "Of 100 detections kept, 61 are different queries here. If all were: masks 250 ms in fp32, 125 ms in bf16."
        in said
    )
    assert rows[-3:] == [
        ["stages", "proposals after the first", "fp32 ms", "bf16 ms"],
        ["------", "------------------------:", "------:", "------:"],
        ["1", "100", "10", "20"],
    ]


def test_a_training_step():
    other = STEP | {"proposals": 300, "compiled": True, "precision": "bf16", "images": 2, "threads": 4}
    said = train.markdown({"steps": [STEP, other]}).splitlines()
    assert said[0].startswith(
        "A training step of resnet50, 10 objects an image, on cpu, 2 threads; seconds, the median"
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said if line[:2] == "| "]
    whole = ["5.00", "4.50", "3.20 GB"]
    assert rows[2] == ["100", "fp32", "1 x 800x1216", *whole, "11.3, 2.26x"]
    assert rows[3] == ["300", "bf16 compiled", "2 x 800x1216", *whole, ""]
    assert rows[4] == ["part", "100 fp32 1 x 800x1216", "300 bf16 compiled 2 x 800x1216"]
    told = {row[0]: row[1] for row in rows[6 : 6 + len(PARTS)]}
    assert told == {part: f"{0.1 * (number + 1):.3f}" for number, part in enumerate(PARTS)}
    held = {row[0]: row[1] for row in rows[-len(train.MEMORY) - 2 :]}
    expected = {name: str(number + 1) for number, name in enumerate(train.MEMORY)}
    assert held == {**expected, "together": "55", "peak": "3200"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "11.3, 2.26x"),
        ({"proposals": 300}, "13.6, 2.72x"),
        *(({name: value}, "") for name, value in (("proposals", 200), ("height", 832), ("width", 1184), ("images", 2))),
        *(({name: value}, "") for name, value in (("objects", 11), ("backbone", "tiny"), ("device", "cuda"))),
    ],
    ids=str,
)
def test_a_step_is_compared_with_a_peer_only_where_that_was_measured(changes: dict[str, Any], said: str):
    assert train._against(STEP | changes) == said


def test_a_table_is_aligned():
    assert frame.table(["a", "b"], [("long name", 1), ("x", 12345)]).splitlines() == [
        "| a         |     b |",
        "| --------- | ----: |",
        "| long name |     1 |",
        "| x         | 12345 |",
    ]
    assert frame.table(["", "b"], []) == "|     |   b |\n| --- | --: |"


def test_a_record_is_named_after_its_part_and_its_hardware(tmp_path: Path):
    hardware = {"name": "ACME (R) X-1, 2 threads"}
    content = {
        "part": "masks",
        "command": "the command",
        "hardware": hardware,
        "versions": {"torch": "2", "numpy": "1"},
    }
    paths = frame.save(tmp_path / "new" / "folder", content, "the text")
    assert [path.name for path in paths] == ["masks-acme-r-x-1-2-threads.json", "masks-acme-r-x-1-2-threads.md"]
    assert json.loads(paths[0].read_text()) == content
    assert paths[1].read_text() == "# ACME (R) X-1, 2 threads\n\n`the command`, torch 2, numpy 1\n\nthe text\n"


def test_one_thread_is_no_threads():
    found = {"processor": "P", "threads": 1, "gpus": ["A", "B"]}
    assert [frame.name_of(found, device) for device in ("cpu", "cuda:0")] == ["P, 1 thread", "A"]
