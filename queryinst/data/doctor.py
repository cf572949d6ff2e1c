"""The data doctor: every fault of a COCO or YouTube-VIS data set, counted, with the first of each and what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from queryinst.config import DataConfig
from queryinst.data import doctor_annotations, doctor_images, doctor_video, video_validation
from queryinst.data.coco import EncodingError, read_json, require_folder
from queryinst.data.doctor_annotations import Survey
from queryinst.data.faults import Findings, rules_of
from queryinst.data.locate import locate
from queryinst.data.own import read_with, reader_of
from queryinst.data.repair import repair
from queryinst.errors import UserError
from queryinst.slots import is_ours

SPLITS = ("train", "val")
BOTH = "both"  # the place of a fault between the two


@dataclass(frozen=True)
class Report:
    """What was found, and what there is in each split."""

    findings: Findings
    surveys: dict[str, Survey]

    @property
    def clean(self) -> bool:
        """Whether there are no errors; there may be warnings."""
        return self.findings.count("error") == 0


def examine(data: DataConfig, images: str = "decode", threads: int = 4, splits: Sequence[str] = SPLITS) -> Report:
    """Collect the faults of both splits, or of one that has no other yet.

    Args:
        data: where they are.
        images: "decode" to read every pixel, "headers", or "none" to leave image files alone.
        threads: images at a time.
        splits: those that there are.

    Raises:
        UserError: a file or folder is not there. Whatever is in them is a fault and not an exception.
    """
    findings, surveys = Findings(), {}
    reader = reader_of(data)
    places = {split: locate(data, split) for split in splits}
    for split, place in places.items():
        if images != "none":
            require_folder(place.images, place.annotations, place.hint)
        content: Any = None
        try:
            format = video_validation.FORMAT if data.video else "COCO"
            content = (
                read_json(place.annotations, place.hint, format)
                if is_ours(reader)
                else read_with(reader, place.annotations, place.hint)
            )
        except UserError as error:
            if not place.annotations.is_file() or not is_ours(reader):
                raise
            code = "not-utf8" if isinstance(error, EncodingError) else "not-json"
            findings.add(split, code, place.annotations.name)
            surveys[split] = Survey()
            continue
        if not data.video:
            for code, where in repair(content, data.crowd):
                findings.add(split, code, where)
        kind = doctor_video if data.video else doctor_annotations
        surveys[split] = kind.examine(content, place.images, split, findings, data.min_image_side, data.keep_empty)
    if len(surveys) == len(SPLITS):
        for code, where in _differences(surveys["train"], surveys["val"]):
            findings.add(BOTH, code, where)
    if images != "none":
        for split, survey in surveys.items():
            doctor_images.examine(survey.images, split, findings, images == "decode", threads)
        videos = [survey.videos for survey in surveys.values()]
        both = videos if None not in videos else [survey.images for survey in surveys.values()]
        for where in doctor_images.shared(*both) if len(both) == len(SPLITS) else ():
            findings.add(BOTH, "shared-video" if data.video else "shared-image", where)
    return Report(findings, surveys)


def _differences(train: Survey, val: Survey) -> Iterator[tuple[str, str]]:
    """The faults of categories between the two files."""
    ours, theirs = train.categories, val.categories
    if not ours or not theirs:
        return  # said already
    if ours != theirs:
        ids = {name: key for key, name in theirs.items()}
        shifts = {ids.get(name, key) - key for key, name in ours.items()}
        if len(ours) == len(theirs) and ours.keys() != theirs.keys() and shifts in ({1}, {-1}):
            yield "categories-shifted", f"train counts from {min(ours)}, val from {min(theirs)}"
            return
        for key, name in sorted(ours.items() ^ theirs.items()):
            yield "categories-differ", f"{key} {name} in {'train' if ours.get(key) == name else 'val'} only"
    elif len(train.used) > 2 and any({key + shift for key in train.used} == set(val.used) for shift in (1, -1)):
        # One list in both files, but the objects of one of them sit one place beside those of the other.
        yield (
            "labels-shifted-between",
            f"train has {min(train.used)} to {max(train.used)}, val {min(val.used)} to {max(val.used)}",
        )


def as_text(report: Report, name: str) -> str:
    """The report for people: a line a split, a line a kind of fault, and the sum."""
    lines = [
        f"{name} {split}: {_size(survey)}, {survey.annotations} annotations, "
        f"{survey.used.total()} objects{f', {survey.crowds} crowd regions' if survey.crowds else ''}, "
        f"{len(survey.categories)} categories"
        for split, survey in report.surveys.items()
    ]
    for finding in report.findings:
        rule = finding.rule
        more = ", ..." if finding.times > len(finding.first) else ""
        lines.append(
            f"{rule.severity:7}  {finding.split:5}  {finding.code}: {finding.times} x {rule.meaning} "
            f"[{', '.join(finding.first)}{more}] -> {rule.advice}"
        )
    errors, warnings = report.findings.count("error"), report.findings.count("warning")
    verdict = "clean" if report.clean else "not clean"
    kinds = len(rules_of(video=any(survey.videos is not None for survey in report.surveys.values())))
    return "\n".join([*lines, f"{verdict}: {errors} errors, {warnings} warnings; {kinds} kinds of fault looked for"])


def _size(survey: Survey) -> str:
    if survey.videos is None:
        return f"{len(survey.images)} images"
    return f"{len(survey.videos)} videos, {len(survey.images)} frames"


def as_json(report: Report) -> dict[str, Any]:
    """The report for machines."""
    return {
        "clean": report.clean,
        "errors": report.findings.count("error"),
        "warnings": report.findings.count("warning"),
        "splits": {
            split: {
                **({} if survey.videos is None else {"videos": len(survey.videos)}),
                "images": len(survey.images),
                "annotations": survey.annotations,
                "objects": survey.used.total(),
                "categories": len(survey.categories),
            }
            for split, survey in report.surveys.items()
        },
        "faults": [
            {
                "code": finding.code,
                "severity": finding.rule.severity,
                "split": finding.split,
                "count": finding.times,
                "first": finding.first,
                "meaning": finding.rule.meaning,
                "advice": finding.rule.advice,
            }
            for finding in report.findings
        ],
    }
