"""What the doctor finds in a YouTube-VIS file that can be read: what would teach the wrong thing, or nothing."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queryinst.data import video_validation
from queryinst.data.coco import is_learnable
from queryinst.data.doctor_annotations import (
    Entry,
    Listed,
    Survey,
    category_faults,
    id_faults,
    is_path,
    object_faults,
)
from queryinst.data.faults import Findings, plain
from queryinst.data.names import natural


def examine(content: Any, folder: Path, split: str, findings: Findings, min_side: int, keep_empty: bool) -> Survey:
    """Collect the faults of an annotation file, whatever JSON it holds.

    Args:
        content: the parsed file.
        folder: of its frames; they are not opened here.
        split: "train" or "val".
        findings: where faults are added.
        min_side, keep_empty: which frames training takes, see DataConfig.
    """
    survey, broken, codes = Survey(videos=[]), set(), set()
    for fault in video_validation.faults(content):
        findings.add(split, fault.code, fault.where)
        if fault.code == "not-youtube-vis":
            return survey
        broken.add(id(fault.entry))
        codes.add(fault.code)
    entries = {name: [e for e in content.get(name) or [] if isinstance(e, dict)] for name in video_validation.FIELDS}
    sound = {name: [e for e in found if id(e) not in broken] for name, found in entries.items()}
    survey.annotations = len(entries["annotations"])
    survey.categories = {category["id"]: plain(str(category["name"])) for category in sound["categories"]}
    of_video: dict[int, list[Entry]] = {video["id"]: [] for video in sound["videos"]}
    for annotation in sound["annotations"]:
        if annotation["video_id"] in of_video:  # not of a video that is broken itself
            of_video[annotation["video_id"]].append(annotation)
    found = [
        *category_faults(sound["categories"], entries["annotations"]),
        *id_faults(entries["annotations"]),
        *_frame_faults(sound["videos"]),
    ]
    for video in sound["videos"]:
        frames = [_listed(video, number, folder) for number in range(len(video["file_names"]))]
        survey.images += frames
        survey.videos = [*(survey.videos or []), frames[0]]
        where = f"video {video['id']}"
        if split == "train" and min(video["height"], video["width"]) < min_side:
            found.append(("image-small", f"{where} ({video['width']}x{video['height']})"))
        found += _track_faults(video, of_video[video["id"]], survey, split)
        if split == "train" and not keep_empty and not any(survey.objects[-len(frames) :]):
            found.append(("video-without-objects", where))
    if "no-ground-truth" not in codes:  # or that is all there is to say of it
        unused = [key for key in survey.categories if not survey.used[key]]
        found += [("category-unused", f"category {key} ({survey.categories[key]})") for key in unused]
        found += [] if survey.used else [("no-objects", "the file")]
    for code, where in found:
        findings.add(split, code, where)
    return survey


def _listed(video: Entry, number: int, folder: Path) -> Listed:
    name = video["file_names"][number]
    where = f"video {video['id']}, frame {number} ({name[:100]})"
    return Listed(where, folder / name, video["height"], video["width"])


def _frame_faults(videos: list[Entry]) -> Iterator[tuple[str, str]]:
    """Of the frames' names; their files are opened elsewhere."""
    seen: set[str] = set()
    for video in videos:
        names, where = video["file_names"], f"video {video['id']}"
        for number, name in enumerate(names):
            if name in seen:
                yield "duplicate-frame", f"{where}, frame {number} ({name[:100]})"
            seen.add(name)
        odd = next((name for name in names if is_path(name)), None)
        if odd:
            yield "file-name-path", f"{where} ({odd[:100]})"
        if len({posixpath.dirname(name) for name in names}) > 1:
            yield "frames-mixed", where
        elif names != sorted(names, key=natural):
            yield "frames-unordered", where
        if len(names) == 1:
            yield "video-single-frame", where


def _track_faults(video: Entry, annotations: list[Entry], survey: Survey, split: str) -> Iterator[tuple[str, str]]:
    """The faults of a video's objects, which are counted into the survey at the same time."""
    height, width, frames = video["height"], video["width"], len(video["file_names"])
    objects = [0] * frames
    masks: dict[tuple[int, int], list[int]] = {}  # by frame and mask: the tracks that have it
    for track, annotation in enumerate(annotations):
        where, areas = f"annotation {str(annotation['id'])[:30]}", annotation.get("areas") or [None] * frames
        visible = learnable = False
        parts = zip(annotation["segmentations"], annotation["bboxes"], areas, strict=True)
        for number, (mask, box, area) in enumerate(parts):
            if mask is None:
                continue
            visible = True
            seen = {"bbox": box, "segmentation": mask, "iscrowd": annotation.get("iscrowd", 0)}
            seen |= {} if area is None else {"area": area}
            for code in object_faults(seen, height, width):
                yield code, f"{where}, frame {number}"
            masks.setdefault((number, hash(repr(mask))), []).append(track)
            # Training learns less than evaluation looks for, see CocoFile.learnable
            if is_learnable(seen, height, width) if split == "train" else not annotation.get("iscrowd"):
                learnable = True
                objects[number] += 1
                if min(box[2:]) > 0:
                    survey.aspects.append(box[2] / box[3])
                    survey.areas.append(box[2] * box[3] / (height * width))
        if not visible:
            yield "never-visible", where
        survey.used[annotation["category_id"]] += learnable
    survey.used += Counter()  # without zeros
    alike = Counter((of[0], other) for of in masks.values() for other in of[1:])
    for (one, other), times in alike.items():
        first, second = (str(annotations[track]["id"])[:30] for track in (one, other))
        yield "duplicate-track", f"annotations {first} and {second}, {times} frame{'s' * (times > 1)}"
    survey.sizes += [(height, width)] * frames
    survey.objects += objects
