"""Video data in YouTube-VIS format: its annotation file as images with track numbers, and pairs of frames to train on.

Below this file a frame is an image like any other. Its id is its position among all frames of the file, video by video.
"""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from queryinst.data import video_validation
from queryinst.data.coco import CocoFile
from queryinst.data.dataset import CocoDataset, Sample
from queryinst.data.images import ImageFile
from queryinst.data.transforms import Instances


@dataclass(frozen=True)
class Video:
    """One entry of `videos`."""

    id: int
    width: int
    height: int
    file_names: tuple[str, ...]  # of the frames, from the folder
    occlusion: bool = False  # one of `shapes_video` in which box overlap does not tell the objects apart

    def __len__(self) -> int:
        """How many frames it has."""
        return len(self.file_names)


class VideoFile(CocoFile):
    """A YouTube-VIS annotation file: its categories, its videos, all their frames as images, and the objects of each.

    `images` are all frames, video by video; an image's id is its position there. An annotation of the file is a track:
    its number is its place in the file, counted from 0. `annotations(image)` are the parts of the tracks that are seen
    in a frame, as a COCO file would have them, with the annotation's own id and its `track`.

    Args:
        path: the JSON file.
        folder: where the frames are.
        hint: what to do when one of the two is not there; ends the error's sentence.

    Raises:
        UserError: a file or folder is missing, the JSON is malformed or not YouTube-VIS, an annotation names an unknown
            video or category, has not one mask and box (or null) a frame, or one that cannot be used.
    """

    format, prefix = video_validation.FORMAT, "video-"

    def __init__(self, path: Path, folder: Path, hint: str = "") -> None:
        super().__init__(path, folder, hint)
        self.lengths: list[int] = [video["length"] for video in self.index.videos()]
        self.ends = np.cumsum([0, *self.lengths])  # the frames of video v are ends[v] to ends[v + 1]

    def _checked(self, content: Any) -> dict[str, Any]:
        video_validation.check_content(content, self.path)
        return _as_images(content)

    @cached_property
    def videos(self) -> list[Video]:
        """In the file's order."""
        entries, spans = self.index.videos(), itertools.pairwise(self.ends.tolist())
        return [
            Video(
                entry["id"],
                entry["width"],
                entry["height"],
                tuple(self.index.image(position)["file_name"] for position in range(*span)),
                entry["occlusion"],
            )
            for entry, span in zip(entries, spans, strict=True)
        ]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """The video id and the frame's number in its video, of each image."""
        return [(entry["id"], frame) for entry in self.index.videos() for frame in range(entry["length"])]

    @property
    def content(self) -> dict[str, Any]:
        """Videos, categories and annotations as a YouTube-VIS dictionary, made anew: the fields that are used.

        For evaluation. Every RLE is compressed; an annotation that is seen in no frame is not there.
        """
        lengths = {entry["id"]: entry["length"] for entry in self.index.videos()}
        tracks: dict[int, dict[str, Any]] = {}
        for position, (video_id, frame) in enumerate(self.places):
            for seen in self.index.annotations(position):
                track = tracks.setdefault(
                    seen["track"],
                    {
                        "id": seen["id"],
                        "video_id": video_id,
                        "category_id": seen["category_id"],
                        "iscrowd": seen["iscrowd"],
                        **{name: [None] * lengths[video_id] for name in video_validation.PER_FRAME},
                    },
                )
                for name, value in (("segmentations", "segmentation"), ("bboxes", "bbox"), ("areas", "area")):
                    track[name][frame] = seen.get(value)
        entries = zip(self.index.videos(), self.videos, strict=True)
        return {
            "videos": [{**entry, "file_names": list(video.file_names)} for entry, video in entries],
            "categories": self.index.categories(),
            "annotations": [tracks[number] for number in sorted(tracks)],
        }

    def instances(self, image: ImageFile) -> Instances:
        """What there is to learn in a frame, with its tracks."""
        found = self.learnable(image)
        tracks = np.array([annotation["track"] for annotation in found], np.int64)
        return replace(self._instances(found), tracks=tracks)

    def near(self, position: int, reach: int) -> range:
        """The positions of the frames of the same video that lie at most `reach` frames from a frame, with it."""
        video = int(np.searchsorted(self.ends, position, side="right")) - 1
        begin, end = self.ends[video : video + 2].tolist()
        return range(max(begin, position - reach), min(end, position + reach + 1))


def _as_images(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checked file as COCO would have it, with a `track` in annotations. Empties `annotations`."""
    images: list[dict[str, Any]] = []
    first: dict[int, int] = {}
    videos = []
    for video in content["videos"]:
        first[video["id"]] = len(images)
        size = {"height": video["height"], "width": video["width"]}
        for name in video["file_names"]:
            images.append({"id": len(images), "file_name": name, **size})
        occlusion = bool(video.get("occlusion"))
        videos.append({"id": video["id"], **size, "length": len(video["file_names"]), "occlusion": occlusion})
    annotations: list[dict[str, Any]] = []
    entries, content["annotations"] = content["annotations"][::-1], []  # they may be gigabytes, and go one by one
    for track in range(len(entries)):
        entry = entries.pop()
        same = {"id": entry["id"], "category_id": entry["category_id"], "iscrowd": entry.get("iscrowd", 0)}
        areas = entry.get("areas") or [None] * len(entry["bboxes"])
        for frame, (mask, box, area) in enumerate(zip(entry["segmentations"], entry["bboxes"], areas, strict=True)):
            if mask is not None:
                seen = {**same, "image_id": first[entry["video_id"]] + frame, "track": track}
                seen |= {"bbox": box, "segmentation": _compressed(mask)} | ({} if area is None else {"area": area})
                annotations.append(seen)
    return {"images": images, "videos": videos, "annotations": annotations, "categories": content["categories"]}


def _compressed(mask: Any) -> Any:
    """A mask with its runs as COCO's text, a fifth of the length: as lists those of YouTube-VIS are gigabytes."""
    if isinstance(mask, list) or isinstance(mask["counts"], str) or np.prod(mask["size"], dtype=float) >= 2**32:
        return mask
    code = coco_mask.frPyObjects({"size": mask["size"], "counts": mask["counts"]}, *mask["size"])
    return {"size": mask["size"], "counts": code["counts"].decode()}


class PairDataset(Dataset[list[Sample]]):
    """Key frames, each with a reference frame of the same video; the same happens to both.

    A pair depends on (seed, epoch, position) only: its keys are those of `frames`.

    Args:
        frames: the key frames, and what is made of a frame.
        source: the file they are of.
        reach: frames that a reference frame lies from its key frame, at most.
    """

    def __init__(self, frames: CocoDataset, source: VideoFile, reach: int) -> None:
        self.frames, self.source, self.reach = frames, source, reach

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> list[Sample]:
        """The key frame and the reference frame."""
        # numbers of its own, so that where the reference lies has nothing to do with the augmentation
        rng = np.random.default_rng([self.frames.seed, *key, 1])
        return self.frames.together(key, lambda frame: [frame, self._reference(frame, rng)])

    def _reference(self, frame: ImageFile, rng: np.random.Generator) -> ImageFile:
        others = [position for position in self.source.near(frame.id, self.reach) if position != frame.id]
        # Of a video with a single frame that is its own reference: objects can still be told from one another.
        return self.source.images[int(rng.choice(others))] if others else frame
