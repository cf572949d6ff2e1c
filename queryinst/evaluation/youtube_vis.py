"""YouTube-VIS average precision of tracks over whole videos, with association accuracy and identity switches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from queryinst.errors import UserError
from queryinst.evaluation import identity, tubes
from queryinst.evaluation.coco import STATS, rles_of
from queryinst.evaluation.matches import Matches, frame_of, matches_of
from queryinst.evaluation.tubes import Object, Track
from queryinst.ops import masks as mask_ops
from queryinst.ops import ranks
from queryinst.ops.masks import Rle
from queryinst.structures import Detections
from queryinst.tracking.tracker import Tracker, taking_part
from queryinst.video_config import TrackerConfig

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")


@dataclass
class Linked:
    """What was found in one video: the frames that were looked at, rising, and the tracks by their identity."""

    frames: list[int] = field(default_factory=list)
    tracks: dict[int, Track] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scored:
    """A video, ready for the average: see `tubes.evaluate`."""

    video: dict[str, Any]
    truth: list[dict[str, Any]]
    found: list[dict[str, Any]]
    counts: identity.Counts


class VideoEvaluator:
    """Links the detections of videos and computes the figures of YouTube-VIS, for masks.

    The frames that were given detections are those that count: a trial on a few batches is judged on those. The frames
    of a video come in order, all to the same process; videos may come one after another in one call.

    The metrics (all but the switches are NaN where there is nothing to find):
        `segm_AP`, `segm_AP50`, `segm_AP75`, `segm_APs`, `segm_AR10` and so on, `segm_AP/CLASS`: as in YouTube-VIS;
            sizes by the mean area over the frames, with bounds at 128 x 128 and 256 x 256 pixels.
        `association_accuracy`: AssA of HOTA at an IoU of 0.5, of all classes together. `id_switches`: how often an
            object was found by another track than the last time, and `id_kept`: the share of times that it was not.
            See `evaluation.identity`.
        `segm_AP_occlusion`, `association_accuracy_occlusion`, `id_kept_occlusion`: of the videos with
            `"occlusion": true` alone, where the content has such videos.

    Args:
        content: the parsed annotation file, in YouTube-VIS format.
        places: image id to video id and number of the frame from 0.
        tracker: how detections are linked. With `by=truth` perfectly, as the identity oracle of MaskTrack R-CNN (Yang
            et al., ICCV 2019): of those that would take part, each that shows an object (mask IoU 0.5, one to one in
            every frame, the class has no say) belongs to it, and the others to nothing. Which others there are no
            tracker can know, so this bound is strict.
        keep_matches: keep what the numbers are made of in `matches`, videos in the place of images.

    Raises:
        UserError: a video has more pixels than can be counted.

    Attributes:
        results: of the last evaluation, by video.
        matches: see `queryinst.evaluation.matches`.
        precision: as of `CocoEvaluator`, of masks.
        diagnosis: always empty: an AP of nearly 0 is not explained.
    """

    def __init__(
        self,
        content: dict[str, Any],
        places: Mapping[int, tuple[int, int]],
        tracker: TrackerConfig,
        keep_matches: bool = False,
    ) -> None:
        self.content, self.places, self.tracker, self.keep_matches = content, places, tracker, keep_matches
        self.categories = sorted(content["categories"], key=lambda category: category["id"])
        self.videos: dict[int, dict[str, Any]] = {video["id"]: video for video in content["videos"]}
        for video in self.videos.values():
            _require_countable(video)
        self._annotations: dict[int, list[dict[str, Any]]] = {key: [] for key in self.videos}
        for annotation in content["annotations"]:
            self._annotations[annotation["video_id"]].append(annotation)
        self._objects: dict[int, list[Object]] = {}  # as they are needed: the same in every evaluation
        self.matches: Matches = {}
        self.precision: dict[str, NDArray[np.float64]] = {}
        self.diagnosis = ""
        self.reset()

    def reset(self) -> None:
        """Forget all detections."""
        self.results: dict[int, Linked] = {}
        self._trackers: dict[int, Tracker] = {}

    def update(self, image_ids: list[int], detections: list[Detections]) -> None:
        """Link the detections of some frames to those before; masks become RLE here and are dropped.

        Raises:
            UserError: a frame has another size than its video says, or the detections lack what the tracker needs.
        """
        for image_id, found in zip(image_ids, detections, strict=True):
            video_id, frame = self.places[image_id]
            video = self.videos[video_id]
            if found.size != (video["height"], video["width"]):
                raise UserError(
                    f"video {video_id} is said to have {video['width']} x {video['height']} pixels, and its frame "
                    f"{frame} has {found.size[1]} x {found.size[0]}: correct width and height in the annotations"
                )
            linked = self.results.setdefault(video_id, Linked())
            if linked.frames and frame <= linked.frames[-1]:
                raise ValueError(f"video {video_id}: frame {frame} comes after frame {linked.frames[-1]}")
            linked.frames.append(frame)
            self._add(linked, video_id, frame, found)

    def _add(self, linked: Linked, video_id: int, frame: int, found: Detections) -> None:
        found = found.cpu()
        if self.tracker.by == "truth":
            found = taking_part(found, self.tracker)
            codes = rles_of(found)
            tracks = self._shown(video_id, frame, codes)
        else:
            found = self._trackers.setdefault(video_id, Tracker(self.tracker)).update(found)
            codes = rles_of(found)
            assert found.tracks is not None
            tracks = found.tracks.tolist()
        for key, code, score, label in zip(tracks, codes, found.scores.tolist(), found.labels.tolist(), strict=True):
            if key >= 0:
                track = linked.tracks.setdefault(key, Track())
                track.frames.append(frame)
                track.codes.append(code)
                track.scores.append(score)
                track.labels.append(label)

    def _shown(self, video_id: int, frame: int, codes: list[Rle]) -> list[int]:
        """Which object of the video each mask of a frame shows, -1 for none."""
        objects = self._objects_of(video_id)
        there = {k: code for k, one in enumerate(objects) if (code := one.codes[frame]) and not one.crowd}
        shown = identity.objects_of(mask_ops.overlaps(list(there.values()), codes))
        return [list(there)[k] if k >= 0 else -1 for k in shown.tolist()]

    def compute(self) -> dict[str, float]:
        """All metrics by name; with several processes of the videos of all, and the same numbers for each."""
        results = ranks.of_all_ranks(self.results)
        scored = [self._scored(video_id, linked) for video_id, linked in sorted(results.items())]
        evaluator = self._average(scored)
        metrics = {f"segm_{name}": _defined(value) for name, value in zip(STATS, evaluator.stats, strict=True)}
        # (IoU thresholds, recalls, classes, areas, tracks): all areas, 100 tracks; -1: no such class.
        by_class = self.precision["segm"] = evaluator.eval["precision"][:, :, :, 0, -1]
        for k, category in enumerate(self.categories):
            metrics[f"segm_AP/{category['name']}"] = _defined(by_class[:, :, k].mean())
        if self.keep_matches:
            self.matches = frame_of(evaluator) | matches_of(evaluator, "segm")
        counts = sum((video.counts for video in scored), identity.Counts())
        metrics |= {"id_switches": float(counts.switches), **_shares(counts)}
        if any(video.get("occlusion") for video in self.videos.values()):
            hidden = [video for video in scored if self.videos[video.video["id"]].get("occlusion")]
            metrics["segm_AP_occlusion"] = _defined(self._average(hidden).stats[0])
            shares = _shares(sum((video.counts for video in hidden), identity.Counts()))
            metrics |= {f"{name}_occlusion": value for name, value in shares.items()}
        return metrics

    def _average(self, scored: list[_Scored]) -> Any:
        truth = [one for video in scored for one in video.truth]
        found = [track for video in scored for track in video.found]
        return tubes.evaluate([video.video for video in scored], self.categories, truth, found)

    def _scored(self, video_id: int, linked: Linked) -> _Scored:
        video = self.videos[video_id]
        height, width, length = video["height"], video["width"], len(video["file_names"])
        seen, objects = set(linked.frames), self._objects_of(video_id)
        if len(seen) < length:  # what was not looked at is not there
            objects = [one.only(seen) for one in objects]
            objects = [one for one in objects if any(one.codes)]
        tracks = [track for _, track in sorted(linked.tracks.items())]
        truth = [
            {
                "image_id": video_id,
                "category_id": one.category_id,
                "iscrowd": int(one.crowd),
                "segmentation": tubes.side_by_side(one.codes, height, width),
                "area": tubes.mean_area(one.areas),
            }
            for one in objects
        ]
        found = [
            {
                "image_id": video_id,
                "category_id": self.categories[track.label]["id"],
                "score": track.score,
                "segmentation": tubes.side_by_side(track.over(length), height, width),
                "area": tubes.mean_area(coco_mask.area(track.codes).tolist()),
            }
            for track in tracks
        ]
        counts = identity.count(
            [one.codes for one in objects if not one.crowd], [track.over(length) for track in tracks], linked.frames
        )
        return _Scored({"id": video_id, "height": height, "width": width * length}, truth, found, counts)

    def _objects_of(self, video_id: int) -> list[Object]:
        if video_id not in self._objects:
            video = self.videos[video_id]
            self._objects[video_id] = [
                tubes.annotated(annotation, video["height"], video["width"])
                for annotation in self._annotations[video_id]
            ]
        return self._objects[video_id]


def _require_countable(video: dict[str, Any]) -> None:
    pixels = video["height"] * video["width"] * len(video["file_names"])
    if pixels >= tubes.LARGEST:
        raise UserError(
            f"video {video['id']} has {pixels} pixels in all its frames, and fewer than {tubes.LARGEST} can be "
            "evaluated: cut it into several"
        )


def _shares(counts: identity.Counts) -> dict[str, float]:
    return {
        "association_accuracy": counts.accuracy / counts.found if counts.found else math.nan,
        "id_kept": 1 - counts.switches / counts.again if counts.again else math.nan,
    }


def _defined(value: float) -> float:
    return float(value) if value > -1 else math.nan


def tracks_to_results(video_id: int, linked: Linked, length: int, category_ids: list[int]) -> list[dict[str, Any]]:
    """The tracks of a video as entries of a results file of the benchmark: masks as compressed RLE, None where unseen.

    Args:
        linked: of that video, of `length` frames.
        category_ids: by label.
    """
    return [
        {
            "video_id": video_id,
            "category_id": category_ids[track.label],
            "score": track.score,
            "segmentations": [code and {**code, "counts": code["counts"].decode()} for code in track.over(length)],
        }
        for _, track in sorted(linked.tracks.items())
    ]


def table(metrics: dict[str, float], names: Sequence[str], prefix: str = "") -> str:
    """Metrics as text: mask AP, how well identities are kept, both for occlusions alone, and mask AP per class."""

    def text(name: str) -> str:
        value = metrics[f"{prefix}{name}"]
        return "-" if math.isnan(value) else f"{value:.3f}"

    lines = [
        "      " + "".join(f"{name:>8}" for name in COLUMNS),
        "mask  " + "".join(f"{text(f'segm_{name}'):>8}" for name in COLUMNS),
        f"identity: association accuracy {text('association_accuracy')}, kept {text('id_kept')}, "
        f"{metrics[f'{prefix}id_switches']:.0f} switches",
    ]
    if f"{prefix}segm_AP_occlusion" in metrics:
        lines.append(
            f"clips with occlusion: mask AP {text('segm_AP_occlusion')}, "
            f"association accuracy {text('association_accuracy_occlusion')}, kept {text('id_kept_occlusion')}"
        )
    return "\n".join([*lines, "mask AP by class: " + ", ".join(f"{name} {text(f'segm_AP/{name}')}" for name in names)])
