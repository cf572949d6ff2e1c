"""`python -m queryinst.dataset COMMAND`: other tools' data as COCO files; COCO files split, joined and mended.

    python -m queryinst.dataset import FOLDER --to DATA          YOLO, labelme, VIA, Label Studio, CVAT, Cityscapes, PNG
    python -m queryinst.dataset split DATA/annotations/all.json --images FOLDER --parts train=0.8 val=0.2
    python -m queryinst.dataset merge A.json B.json --to BOTH.json  categories are joined by name
    python -m queryinst.dataset filter A.json --to B.json --classes car bus --min-area 100
    python -m queryinst.dataset fix A.json --to B.json              what the doctor finds, as far as it can be mended

No command changes a file that is there: what it writes is new, and it refuses a name that is taken. Exit code 1: `fix`
left errors that it cannot mend. 2: something is not there, or cannot be read.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queryinst.errors import UserError, room
from queryinst.studies.ending import ending
from queryinst.studies.files import write_whole

FORMATS = "cityscapes, yolo, cvat, instance_maps, labelme, via or label_studio"


def parser() -> argparse.ArgumentParser:
    """What the commands take."""
    made = argparse.ArgumentParser(
        "python -m queryinst.dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _import(commands.add_parser("import", help="annotations of another tool as COCO files"))
    _split(commands.add_parser("split", help="parts with each class in the same share, near-duplicates together"))
    _merge(commands.add_parser("merge", help="several annotation files as one"))
    _filter(commands.add_parser("filter", help="some classes, large objects, images with objects"))
    _fix(commands.add_parser("fix", help="what the doctor finds, as far as it can be mended"))
    return made


def _import(made: argparse.ArgumentParser) -> None:
    made.add_argument("source", type=Path, help="folder or file of the annotations")
    made.add_argument("--to", type=Path, required=True, help="folder for annotations/SPLIT.json: the new data.root")
    made.add_argument("--format", help=f"{FORMATS}; recognised by the content otherwise")
    made.add_argument(
        "--images", type=Path, help="folder of the images; where the format says, or beside the annotations"
    )
    made.add_argument(
        "--files",
        choices=("leave", "link", "copy"),
        default="leave",
        help="images stay where they are (the default: data.train_images names that folder), or are linked or copied "
        "to images/SPLIT; copies are upright where a camera noted how to turn them",
    )
    made.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names of the classes, in order, or of those without one",
    )
    made.add_argument("--attribute", help="VIA: the region attribute that holds the class")
    made.add_argument("--no-boxes", action="store_true", help="leave out objects that are boxes; else as rectangles")
    made.add_argument("--skip-missing", action="store_true", help="leave out images that are not there")
    made.set_defaults(run=_run_import)


def _split(made: argparse.ArgumentParser) -> None:
    made.add_argument("annotations", type=Path, help="COCO file")
    made.add_argument("--images", type=Path, help="folder of its images, which are looked at for near-duplicates")
    made.add_argument("--parts", nargs="+", default=["train=0.8", "val=0.2"], metavar="NAME=SHARE", help="make up 1")
    made.add_argument("--seed", type=int, default=0, help="another seed, another split")
    made.add_argument("--to", type=Path, help="folder for NAME.json of each part; that of the COCO file by default")
    made.add_argument("--distance", type=int, default=6, help="bits of 64 in which near-duplicates may differ (6)")
    made.add_argument("--no-duplicates", action="store_true", help="do not look for near-duplicates, nor at images")
    made.set_defaults(run=_run_split)


def _merge(made: argparse.ArgumentParser) -> None:
    made.add_argument("annotations", nargs="+", type=Path, help="COCO files")
    made.add_argument("--to", type=Path, required=True, help="the file to write; it must not exist")
    made.add_argument(
        "--images",
        nargs="+",
        type=Path,
        help="folder of each file's images: file names are written from a folder of all",
    )
    made.add_argument("--join", action="store_true", help="images of one name are one image, with all annotations")
    made.set_defaults(run=_run_merge)


def _filter(made: argparse.ArgumentParser) -> None:
    made.add_argument("annotations", type=Path, help="COCO file")
    made.add_argument("--to", type=Path, required=True, help="the file to write; it must not exist")
    made.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="keep these")
    made.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave these out")
    made.add_argument("--min-area", type=float, default=0, metavar="PIXELS", help="of an object")
    made.add_argument("--min-side", type=float, default=0, metavar="PIXELS", help="shorter side of an object's box")
    made.add_argument("--min-image-side", type=int, default=0, metavar="PIXELS", help="shorter side of an image")
    made.add_argument("--no-crowd", action="store_true", help="leave out crowd regions")
    made.add_argument("--no-empty", action="store_true", help="leave out images without objects")
    made.set_defaults(run=_run_filter)


def _fix(made: argparse.ArgumentParser) -> None:
    made.add_argument("annotations", type=Path, help="COCO file, or one that should be")
    made.add_argument(
        "--to", type=Path, required=True, help="the file to write; beside it NAME.changes.json lists every change"
    )
    made.add_argument("--images", type=Path, help="folder of its images, for sizes and names that are wrong")
    made.add_argument(
        "--boxes",
        action="store_true",
        help="an object without a mask gets the rectangle of its box; else it is removed",
    )
    made.add_argument(
        "--no-crowd", action="store_true", help="what is marked as a crowd region is an object, as in CVAT's masks"
    )
    made.set_defaults(run=_run_fix)


def _run_import(given: argparse.Namespace) -> None:
    from queryinst.formats.found import Request
    from queryinst.formats.recognise import read
    from queryinst.formats.to_coco import bring, convert, next_command, summary

    classes = tuple(given.classes)
    request = Request(given.source, given.images, classes, given.attribute, not given.no_boxes, given.skip_missing)
    found, what = read(request, given.format)
    print(f"{given.source}: {what}", flush=True)
    written = convert(found, given.to, given.files, classes)
    for one in written:
        _require_new(one.annotations)
    bring(found, written, given.files)
    for one in written:
        _write(one.annotations, one.content)
    print("\n".join([*summary(found, written), next_command(given.to, written)]))


def _run_split(given: argparse.Namespace) -> None:
    from queryinst.curation.read import described
    from queryinst.curation.split import absent, divide, shares
    from queryinst.data.locate import doctor_command

    parts = shares(given.parts)
    folder = given.to or given.annotations.parent
    for name in parts:
        _require_new(folder / f"{name}.json")
    images = None if given.no_duplicates else given.images
    if images is None and not given.no_duplicates:
        raise UserError("--images FOLDER is needed to keep near-duplicates together; or split without: --no-duplicates")
    content, made, notes = divide(given.annotations, parts, given.seed, images, given.distance)
    for name, part in made.items():
        _write(folder / f"{name}.json", part)
    lines = [f"{folder / name}.json: {described(part)}" for name, part in made.items()]
    if given.images and {"train", "val"} <= parts.keys():
        lines.append(
            doctor_command(folder, {name: (folder / f"{name}.json", given.images) for name in ("train", "val")})
        )
    print("\n".join([*notes, *absent(content, made), *lines]))


def _run_merge(given: argparse.Namespace) -> None:
    from queryinst.curation.merge import merge, sources
    from queryinst.curation.read import described

    _require_new(given.to)
    files, common = sources(given.annotations, given.images)
    content, notes = merge(files, given.join)
    _write(given.to, content)
    lines = [f"file names are from {common}, which is the folder of the images now"] if common else []
    print("\n".join([*notes, *lines, f"{given.to}: {described(content)}"]))


def _run_filter(given: argparse.Namespace) -> None:
    from queryinst.curation.choose import Choice, choose
    from queryinst.curation.read import described, read

    _require_new(given.to)
    sizes = given.min_area, given.min_side, given.min_image_side
    choice = Choice(tuple(given.classes), tuple(given.without), *sizes, not given.no_crowd, not given.no_empty)
    content, gone = choose(read(given.annotations), choice)
    _write(given.to, content)
    lines = [f"left out: {times} {what}" for what, times in gone.items()]
    print("\n".join([*lines, f"{given.to}: {described(content)}"]))


def _run_fix(given: argparse.Namespace) -> None:
    from queryinst.curation.mend import left, mend
    from queryinst.data.coco import read_json, require_folder

    listed = given.to.with_name(f"{given.to.stem}.changes.json")
    _require_new(given.to)
    _require_new(listed)
    if given.images:
        require_folder(given.images, given.annotations)
    found = read_json(given.annotations)
    content, changes = mend(found, given.annotations, given.images, given.boxes, not given.no_crowd)
    _write(given.to, content)
    _write(listed, changes.as_json())
    print("\n".join([*changes.short(), f"{given.to}: {len(changes.all)} changes, listed in {listed}"]))
    remaining = left(content, given.images or given.to.parent)
    for one in remaining:
        print(f"left: {one.rule.severity} {one.code}: {one.times} x [{', '.join(one.first[:3])}] -> {one.rule.advice}")
    if any(one.rule.severity == "error" for one in remaining):
        sys.exit(1)


def _require_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists already, and nothing is overwritten; give another name with --to, or delete it")


def _write(path: Path, content: Any) -> None:
    """Write JSON, all or nothing."""
    with room(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content))


def main() -> None:
    arguments = parser().parse_args()
    run: Callable[[argparse.Namespace], None] = arguments.run
    with ending():
        run(arguments)


if __name__ == "__main__":
    main()
