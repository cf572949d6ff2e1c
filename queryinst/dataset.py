"""`python -m queryinst.dataset COMMAND`: other tools' data as COCO files; COCO files split, joined and mended.

    python -m queryinst.dataset import FOLDER --to DATA          YOLO, labelme, VIA, Label Studio, CVAT, Cityscapes, PNG
    python -m queryinst.dataset split DATA/annotations/all.json --images FOLDER --parts train=0.8 val=0.2
    python -m queryinst.dataset merge A.json B.json --to BOTH.json  categories are joined by name
    python -m queryinst.dataset filter A.json --to B.json --classes car bus --min-area 100
    python -m queryinst.dataset fix A.json --to B.json              what the doctor finds, as far as it can be mended

No command changes a file that is there: what it writes is new, and it refuses a name that is taken.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queryinst.studies.ending import ending


def parser() -> argparse.ArgumentParser:
    """What the commands take."""
    made = argparse.ArgumentParser(
        "python -m queryinst.dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _import(commands.add_parser("import", help="annotations of another tool as COCO files"))
    return made


def _import(made: argparse.ArgumentParser) -> None:
    made.add_argument("source", type=Path, help="folder or file of the annotations")
    made.add_argument("--to", type=Path, required=True, help="folder for annotations/SPLIT.json: the new data.root")
    made.add_argument("--format", help="what the annotations are; recognised by their content otherwise")
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


def _require_new(path: Path) -> None:
    from queryinst.errors import UserError

    if path.exists():
        raise UserError(f"{path} exists already, and nothing is overwritten; give another name with --to, or delete it")


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, all or nothing."""
    import json

    from queryinst.errors import room
    from queryinst.studies.files import write_whole

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
