"""`python -m queryinst.doctor data=coco data.root=FOLDER`: what is wrong with a data set, and what to do about it.

    python -m queryinst.doctor data=coco data.root=FOLDER                         every annotation, every pixel
    python -m queryinst.doctor data=coco data.root=FOLDER images=headers          sooner, but blind to files cut short
    python -m queryinst.doctor data=coco data.root=FOLDER json=-                  for machines, on standard output
    python -m queryinst.doctor data=coco data.root=FOLDER picture=data.png        sizes, counts and aspect ratios
    python -m queryinst.doctor data=youtube_vis data.root=FOLDER                  every frame and mask of videos

Exit code 0: clean, perhaps with warnings. 1: there are errors. 2: a file or folder is not there, or a setting is wrong.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queryinst.command_config import DoctorConfig
from queryinst.config import DataConfig
from queryinst.data.layout import Undivided, find
from queryinst.errors import UserError, room
from queryinst.studies.command import command

if TYPE_CHECKING:
    from queryinst.data.doctor_annotations import Survey
    from queryinst.visualize.charts import Chart

STDOUT = "-"
SIDES = [0, 64, 128, 256, 384, 512, 640, 768, 1024, 1536, 2048, 4096, 8192]  # pixels
COUNTS = [-1, 0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100]  # objects
ASPECTS = [0, 1 / 8, 1 / 4, 1 / 2, 2 / 3, 0.9, 1.1, 1.5, 2, 4, 8, 16]  # width over height
AREAS = [0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]  # box over image
CATEGORIES = 14  # bars: the most frequent ones


@command("doctor", DoctorConfig)
def main(config: DoctorConfig) -> None:
    from queryinst.data import doctor
    from queryinst.data.embedded import make_embedded
    from queryinst.studies.results import require_writable, write

    if config.json and config.json != STDOUT:
        require_writable(Path(config.json), "json", "data.json")
    if config.picture:
        if Path(config.picture).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise UserError(f"picture takes a file that ends in .png or .jpg; got '{config.picture}'")
        require_writable(Path(config.picture), "picture", "data.png")
    make_embedded(config.data)
    data, splits = _found(config.data)
    report = doctor.examine(data, config.images, config.threads, splits)
    if config.json == STDOUT:
        print(json.dumps(doctor.as_json(report), indent=2))
    else:
        print(doctor.as_text(report, config.name))
    if config.json and config.json != STDOUT:
        write(Path(config.json), doctor.as_json(report))
    if config.picture:
        _write_picture(Path(config.picture), report.surveys)
    if not report.clean:
        sys.exit(1)


def _found(data: DataConfig) -> tuple[DataConfig, tuple[str, ...]]:
    """The settings with the files that are there, and which splits these are. Of one file no split is made here."""
    try:
        return find(data), ("train", "val")
    except Undivided as only:
        places = {"train_annotations": only.annotations, "train_images": only.images}
        name = only.annotations.relative_to(data.root)
        print(
            f"note: only {name} is there, and looked at; training keeps a fifth of it to validate with", file=sys.stderr
        )
        values: dict[str, Any] = {key: path.relative_to(data.root).as_posix() for key, path in places.items()}
        return dataclasses.replace(data, **values), ("train",)


def _write_picture(file: Path, surveys: Mapping[str, "Survey"]) -> None:
    import cv2

    from queryinst.visualize.charts import draw

    picture = draw(_charts(surveys))[..., ::-1]
    with room(file):
        file.write_bytes(cv2.imencode(file.suffix, picture)[1].tobytes())


def _charts(surveys: Mapping[str, "Survey"]) -> list["Chart"]:
    """The panels of the picture, each of every split."""
    from queryinst.visualize.charts import histogram, shares

    longer = {split: [max(size) for size in survey.sizes] for split, survey in surveys.items()}
    shapes = {split: [width / height for height, width in survey.sizes] for split, survey in surveys.items()}
    counts = [str(edge) for edge in COUNTS[1:]]
    ratios = [f"{edge:.2g}" for edge in ASPECTS[1:]]
    names = {key: name for survey in surveys.values() for key, name in survey.categories.items()}
    total = {key: sum(survey.used[key] for survey in surveys.values()) for key in names}
    shown = sorted(names, key=lambda key: -total[key])[:CATEGORIES]
    rest = f" ({len(shown)} of {len(names)})" if len(shown) < len(names) else ""
    return [
        histogram("images: longer side, pixels, up to", longer, SIDES, [str(edge) for edge in SIDES[1:]]),
        histogram("images: width / height, up to", shapes, ASPECTS, ratios),
        histogram("objects per image, up to", {s: v.objects for s, v in surveys.items()}, COUNTS, counts),
        shares(
            f"objects per category{rest}",
            [names[key][:9] for key in shown],
            {split: [survey.used[key] for key in shown] for split, survey in surveys.items()},
        ),
        histogram("objects: box width / height, up to", {s: v.aspects for s, v in surveys.items()}, ASPECTS, ratios),
        histogram(
            "objects: box area / image area, up to",
            {split: survey.areas for split, survey in surveys.items()},
            AREAS,
            [f"{edge:g}" for edge in AREAS[1:]],
        ),
    ]


if __name__ == "__main__":
    main()
