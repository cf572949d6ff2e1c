"""The embedded clips `shapes_video`: a YouTube-VIS folder that the project makes itself, the same everywhere.

A clip is a function of (seed, split, index). It shows the objects of `shapes` with the same categories and ids: two to
six of them move on smooth paths, turn, grow and shrink, enter and leave, and cover each other. An object keeps its
outline and its texture, which turns and grows with it; where it is hidden or outside it has no mask, and its track goes
on when it returns.

Every second clip is an occlusion clip (`occlusion` in the file's `videos`): objects of one category that look different
exchange places unseen (see `queryinst.data.motion`), so that the overlap of boxes from frame to frame tells the wrong
story and only looks tell the right one. Training clips keep every fourth frame of theirs: four times as many different
clips, and so objects, in an epoch of the same length.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.data import motion
from queryinst.data.drawing import (
    OUTLINES,
    Colours,
    Points,
    Rng,
    background,
    paint,
    pose,
    posed_texture,
    silhouette,
    texture,
    typical,
)
from queryinst.data.folder import make_folder
from queryinst.data.motion import Way
from queryinst.data.shapes import ABSENT, CATEGORIES, FINE, FIRST_ID, image_size, shadow_of
from queryinst.ops.masks import LocalMask, encode
from queryinst.video_config import ShapesVideoConfig

VERSION = 2  # of what is drawn; part of the data set's fingerprint
STRIDE = {"train": 4, "val": 1}  # frames of a clip from one that is kept to the next
LEAST_SEEN = 12  # pixels: of an object that shows less there is no mask
UNLIKE = 110  # distance in RGB between the mean colours of objects that are told apart by looks, at least

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Actor:
    """An object of a clip: how it looks, which stays the same, and where it is."""

    category: int
    outline: list[Points]  # within -1 to 1
    surface: NDArray[np.float32]  # (side, side, 3), the texture of its own square
    shadow: tuple[float, float, float]
    way: Way


def fingerprint(config: ShapesVideoConfig) -> dict[str, Any]:
    """What the data set is a function of."""
    return {"generator": "shapes_video", "version": VERSION, **asdict(config)}


def make(root: Path, config: ShapesVideoConfig) -> None:
    """Write the data set to `root` unless it is there already, as a whole or not at all: `{train,val}/JPEGImages` with
    a folder a video, and `annotations/instances_{train,val}.json`.

    Raises:
        UserError: `root` holds something else.
    """
    make_folder(root, fingerprint(config), lambda folder, split, indices: _write(folder, split, indices, config))


def _write(root: Path, split: str, indices: Iterable[int], config: ShapesVideoConfig) -> None:
    """One split: its frames and its annotation file."""
    content: dict[str, Any] = {
        "info": {"description": "QueryInst's embedded clips", "made_from": fingerprint(config)},
        "categories": [{"id": key, "name": name, "supercategory": "shape"} for key, name in CATEGORIES.items()],
        "videos": [],
        "annotations": [],
    }
    for index in indices:
        frames, annotations = draw(config, split, index)
        video_id = FIRST_ID[split] + index
        names = [f"{video_id:06d}/{number:05d}.jpg" for number in range(len(frames))]
        size = {"width": frames[0].shape[1], "height": frames[0].shape[0], "length": len(frames)}
        (root / split / "JPEGImages" / f"{video_id:06d}").mkdir(parents=True)
        for name, picture in zip(names, frames, strict=True):
            code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            (root / split / "JPEGImages" / name).write_bytes(code.tobytes())
        content["videos"].append({"id": video_id, **size, "file_names": names, "occlusion": is_occlusion(index)})
        for annotation in annotations:
            key = len(content["annotations"]) + 1
            content["annotations"].append({"id": key, "video_id": video_id, **size, **annotation})
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def is_occlusion(index: int) -> bool:
    """Whether the clip of this number is one in which box overlap does not tell the objects apart."""
    return index % 2 == 1


def draw(config: ShapesVideoConfig, split: str, index: int) -> tuple[list[Picture], list[dict[str, Any]]]:
    """One clip: its frames (H, W, 3) uint8 RGB, and the annotations of the objects that are ever seen, without ids."""
    rng = np.random.default_rng([config.seed, list(FIRST_ID).index(split), index, 1])
    width, height = image_size(rng, config.side)
    cast = _cast(rng, width, height, config.frames, occlusion=is_occlusion(index))
    scene, grain = background(rng, width, height), rng.uniform(2, 10)
    frames: list[Picture] = []
    masks: list[list[Any]] = [[] for _ in cast]
    for time in range(0, config.frames, STRIDE[split]):
        picture = scene.copy()
        owner = np.zeros((height * FINE, width * FINE), np.uint8)  # 0: background; the n-th object has n
        for number, actor in enumerate(cast, 1):  # from the back to the front
            where = actor.way.centres[time], actor.way.radii[time], actor.way.angles[time]
            mask = silhouette(pose(actor.outline, *where), height, width, FINE)
            if mask.any():
                paint(picture, mask, posed_texture(actor.surface, *where, width, height), actor.shadow)
                owner[mask] = number
        noise = rng.normal(0, grain, picture.shape)
        frames.append((picture + noise).clip(0, 255).astype(np.uint8))
        for number, seen in enumerate(masks, 1):
            seen.append(_visible(owner == number, width, height))
    return frames, [_annotation(actor, seen) for actor, seen in zip(cast, masks, strict=True) if any(seen)]


def _visible(fine: NDArray[np.bool_], width: int, height: int) -> tuple[dict[str, Any], list[float], float] | None:
    """Mask, box and area of what is seen of an object."""
    if not fine.any():
        return None
    share = cv2.resize(fine.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    bitmap = (share >= 0.5).astype(np.uint8)
    area = int(bitmap.sum())
    if area < LEAST_SEEN:
        return None
    rle = encode(LocalMask(bitmap, 0, 0), (height, width))
    box = [float(value) for value in cv2.boundingRect(bitmap)]
    return {"size": [height, width], "counts": rle["counts"].decode()}, box, float(area)


def _annotation(actor: Actor, seen: list[Any]) -> dict[str, Any]:
    masks, boxes, areas = (list(column) for column in zip(*(of or (None, None, None) for of in seen), strict=True))
    return {
        "category_id": actor.category,
        "iscrowd": 0,
        "segmentations": masks,
        "bboxes": boxes,
        "areas": areas,
    }


def _cast(rng: Rng, width: int, height: int, frames: int, occlusion: bool) -> list[Actor]:
    """The objects of a clip, from the back to the front."""
    size = np.array([width, height], np.float64)
    kinds = [key for key in CATEGORIES if key != ABSENT]
    if not occlusion:
        ways = [motion.roam(rng, size, frames) for _ in range(rng.integers(2, 7))]
        return [_actor(rng, int(rng.choice(kinds)), way) for way in ways]
    kind = int(rng.choice(kinds))
    way_of = motion.OCCLUSIONS[rng.choice(len(motion.OCCLUSIONS), p=motion.SHARES)]
    rivals, screen = way_of(rng, size, frames)
    others = [key for key in kinds if key != kind]
    cast = [
        _actor(rng, int(rng.choice(others)), motion.roam(rng, size, frames, largest=0.15))
        for _ in range(rng.integers(0, 3))
    ]
    looks: list[Colours] = []
    for _ in rivals:
        looks.append(_unlike(rng, kind, looks))
    alike = _outline(rng, kind)  # only colours and texture tell them apart
    cast += [_actor(rng, kind, way, alike, look) for way, look in zip(rivals, looks, strict=True)]
    if screen:
        blocks = [key for key in others if CATEGORIES[key] in motion.SCREENS]
        block = int(rng.choice(blocks))
        full = motion.SCREENS[CATEGORIES[block]]
        cast.append(_actor(rng, block, screen.grown(full), OUTLINES[CATEGORIES[block]](rng)))
    return cast


def _unlike(rng: Rng, category: int, others: list[Colours]) -> Colours:
    """Colours that are far from those of others: the best of some tries."""

    def distance(colours: Colours) -> float:
        mean = (colours[0] + colours[1]) / 2
        return min((float(np.linalg.norm(mean - (a + b) / 2)) for a, b in others), default=np.inf)

    tries = []
    for _ in range(40):
        tries.append(_colours(rng, category, stray=0.7))
        if distance(tries[-1]) >= UNLIKE:
            break
    return max(tries, key=distance)


def _colours(rng: Rng, category: int, stray: float) -> Colours:
    return typical(rng, list(CATEGORIES).index(category), len(CATEGORIES), stray)


def _outline(rng: Rng, category: int) -> list[Points]:
    stretch = rng.uniform(0.75, 1.0)
    return [points * [1, stretch] for points in OUTLINES[CATEGORIES[category]](rng)]


def _actor(
    rng: Rng, category: int, way: Way, outline: list[Points] | None = None, colours: Colours | None = None
) -> Actor:
    side = int(np.ceil(2 * way.radii.max()))
    outline = outline or _outline(rng, category)
    colours = colours or _colours(rng, category, stray=0.3)
    return Actor(category, outline, texture(rng, side, side, colours), shadow_of(rng), way)
