"""What must hold of a YouTube-VIS annotation file before anything is read from it: the twin of `validation`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queryinst.data.validation import (
    LARGEST,
    Fault,
    by_id,
    category_fault,
    held,
    id_faults,
    list_faults,
    object_faults,
    positive,
    short,
)
from queryinst.errors import UserError

FORMAT = "YouTube-VIS"
FIELDS = {
    "categories": ("id", "name"),
    "videos": ("id", "file_names", "height", "width"),
    "annotations": ("id", "video_id", "category_id", "bboxes", "segmentations"),
}
PER_FRAME = ("segmentations", "bboxes", "areas")  # lists of an annotation, with a place for every frame of its video


def check_content(content: Any, path: Path) -> None:
    """Check structure, references between the lists, and boxes and masks frame by frame.

    Raises:
        UserError: the first fault, with the ids of the video and annotation and the frame that it concerns.
    """
    fault = next(faults(content), None)
    if fault:
        raise UserError(f"{path}{fault.sentence}")


def faults(content: Any) -> Iterator[Fault]:
    """All that makes a file unusable, whatever JSON it holds. An entry with a fault may have more of them."""
    lists = isinstance(content, dict) and {name for name in FIELDS if isinstance(content.get(name), list)}
    if lists == {"videos", "categories"} and content.get("annotations") is None:
        hidden = (
            " has no annotations: those of YouTube-VIS's own validation and test videos are not published; "
            "keep some of the training videos for validation, in a file of their own"
        )
        yield Fault("no-ground-truth", "the file", hidden)
        content = content | {"annotations": []}
    elif lists != set(FIELDS):
        wanted = "it needs the lists videos, annotations and categories"
        yield Fault(
            "not-youtube-vis", "the file", f" is not a {FORMAT} annotation file: {wanted}; it has {held(content)}"
        )
        return
    whole: dict[str, list[dict[str, Any]]] = {}
    yield from list_faults(content, FIELDS, FORMAT, whole)
    if not content["videos"]:
        yield Fault("no-videos", "the file", " has no videos")
    yield from id_faults(whole["videos"], "videos")
    unusable = set()
    for video in whole["videos"]:
        for code, wrong in _video_faults(video):
            unusable.add(id(video))
            yield Fault(code, f"video {short(video['id'])}", f": video {short(video['id'])} {wrong}", video)
    # An entry that lacks something is there all the same: its annotations are not to blame.
    usable = {id(video) for video in whole["videos"]} - unusable
    videos = {key: video if id(video) in usable else None for key, video in by_id(content["videos"]).items()}
    categories = by_id(content["categories"])
    for annotation in whole["annotations"]:
        where = f"annotation {short(annotation['id'])}"
        try:
            for code, place, wrong in _annotation_faults(annotation, videos, categories):
                yield Fault(code, f"{where}{place}", f": {where}{place} {wrong}", annotation)
        except (TypeError, ValueError, OverflowError, IndexError) as error:  # a value of a kind nobody thinks of
            yield Fault("not-understood", where, f": {where} cannot be understood: {error}", annotation)


def _video_faults(video: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kinds of fault, each with words that go on from the video."""
    names = video["file_names"]
    if not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
        yield "file-names", f"has file_names {short(names)}; wanted a list with the file's name of every frame"
    elif not names:
        yield "video-empty", "has no frames (file_names is empty)"
    elif video.get("length", len(names)) != len(names):
        yield "video-length", f"has length {short(video['length'])} and {len(names)} file_names"
    if not (positive(video["height"]) and positive(video["width"])):
        sizes = f"width {short(video['width'])[:20]} and height {short(video['height'])[:20]}"
        yield "size-field", f"has {sizes}; both must be positive whole numbers, and at most {LARGEST}"


def _annotation_faults(
    annotation: dict[str, Any], videos: dict[int, Any], categories: dict[int, Any]
) -> Iterator[tuple[str, str, str]]:
    """Kind, where besides the annotation, and words that go on from there.

    `videos` has None where a video has no usable frames.
    """
    if annotation["video_id"] not in videos:
        wrong = f"names video {short(annotation['video_id'])}, which is not among the {len(videos)} videos"
        yield "dangling-video", "", wrong
    unknown = category_fault(annotation, categories)
    if unknown:
        yield unknown[0], "", unknown[1]
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield "iscrowd-value", "", f"has iscrowd {short(annotation['iscrowd'])}; wanted 0 or 1"
    video = videos.get(annotation["video_id"])
    if video is None:
        return
    frames, lists = len(video["file_names"]), [name for name in PER_FRAME if annotation.get(name) is not None]
    sound = True
    for name in {**dict.fromkeys(PER_FRAME[:2]), **dict.fromkeys(lists)}:  # areas may be left out
        values = annotation[name]
        if not isinstance(values, list) or len(values) != frames:
            has = f"{len(values)} {name}" if isinstance(values, list) else f"{name} {short(values)}"
            yield f"{name}-length", "", f"has {has}; its video {annotation['video_id']} has {frames} frames"
            sound = False
    if not sound:
        return
    areas = annotation.get("areas") or [None] * frames
    for frame, (mask, box, area) in enumerate(
        zip(annotation["segmentations"], annotation["bboxes"], areas, strict=True)
    ):
        place = f", frame {frame}"
        without = mask is None or mask == []
        if without != (box is None):
            has, lacks = ("box", "mask") if without else ("mask", "box")
            yield "half-visible", place, f"has a {has} and no {lacks}; where an object is not seen both are null"
        elif mask is not None:
            seen = {"bbox": box, "segmentation": mask} | ({} if area is None else {"area": area})
            for code, wrong in object_faults(seen, video):
                yield code, place, wrong
