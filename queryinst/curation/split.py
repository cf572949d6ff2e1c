"""A data set in parts that have each class in the same share, with near-duplicates in one part.

Iterative stratification (Sechidis et al., 2011): the class that the fewest images are left of is dealt out first, each
image to the part that lacks this class most. Here not an image is dealt out, but a group of near-duplicates.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from queryinst.curation.duplicates import FURTHEST, groups, hashes
from queryinst.curation.read import Content, Entry, first, part_of, read
from queryinst.errors import UserError

Group = Sequence[int]  # positions of images


def shares(parts: Sequence[str]) -> dict[str, float]:
    """Name to share, of NAME=SHARE. Raises UserError unless they are different and make up 1."""
    found: dict[str, float] = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            found[name] = float(share)
        except ValueError:
            found[name] = 0
        if not re.fullmatch(r"[\w.-]+", name) or not 0 < found[name] <= 1:
            raise UserError(f"--parts has '{part}'; wanted NAME=SHARE with a share above 0, such as train=0.8 val=0.2")
    if len(found) < len(parts) or abs(sum(found.values()) - 1) > 1e-6:
        raise UserError(f"--parts {' '.join(parts)}: wanted different names, and shares that make up 1")
    return found


def divide(
    path: Path, parts: Mapping[str, float], seed: int, images: Path | None, distance: int
) -> tuple[Content, dict[str, Content], list[str]]:
    """The file, its parts, and what there is to say of near-duplicates.

    Args:
        path: COCO file.
        parts: as of `split`.
        seed: as of `split`.
        images: folder, looked at for near-duplicates; None not to look.
        distance: bits in which near-duplicates may differ.

    Raises:
        UserError: a file cannot be read, or there are fewer images than parts.
    """
    content = read(path)
    listed = content["images"]
    if len(listed) < len(parts):
        raise UserError(f"{path} has {len(listed)} images, which is too few for {len(parts)} parts")
    if images is None:
        return content, split(content, parts, [[place] for place in range(len(listed))], seed), []
    if not 0 <= distance <= FURTHEST:
        raise UserError(f"--distance {distance}: wanted 0 to {FURTHEST} bits")
    together = groups(hashes([images / image["file_name"] for image in listed]), distance)
    return content, split(content, parts, together, seed), _said(together, listed, parts)


def _said(together: Sequence[Group], images: list[Entry], parts: Mapping[str, float]) -> list[str]:
    several = sorted((group for group in together if len(group) > 1), key=len, reverse=True)
    if not several:
        return ["near-duplicates: none"]
    lines = [f"near-duplicates: {len(several)} groups of {sum(map(len, several))} images, each kept in one part"]
    lines += [f"  {len(group)}: {first([images[place]['file_name'] for place in group])}" for group in several[:3]]
    if len(several[0]) > max(min(parts.values()) * len(images), 10):
        lines.append(
            "the largest group is larger than the smallest part should be: if these images are not alike, lower "
            "--distance or give --no-duplicates"
        )
    return lines


def split(content: Content, parts: Mapping[str, float], together: Sequence[Group], seed: int) -> dict[str, Content]:
    """The parts of a file. The same seed gives the same parts, in whatever order the file has its images.

    Args:
        content: a COCO file without faults.
        parts: the share of images of each part; they make up 1.
        together: groups, as positions of images in the file; the images of a group stay together.
        seed: of the order in which images that are alike are dealt out.
    """
    images: list[Entry] = content["images"]
    classes: dict[int, set[int]] = {image["id"]: set() for image in images}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            classes[annotation["image_id"]].add(annotation["category_id"])
    ordered = sorted(together, key=lambda group: sorted(str(images[place]["file_name"]) for place in group))
    random.Random(seed).shuffle(ordered)
    counts = [Counter(key for place in group for key in classes[images[place]["id"]]) for group in ordered]
    chosen = deal([len(group) for group in ordered], counts, list(parts.values()))
    return {
        name: part_of(
            content, [images[p] for group, to in zip(ordered, chosen, strict=True) if to == part for p in group]
        )
        for part, name in enumerate(parts)
    }


def deal(sizes: Sequence[int], counts: Sequence[Counter[int]], shares: Sequence[float]) -> list[int]:
    """The part that each group goes to.

    Args:
        sizes: images of each group.
        counts: how many images of each group have a class.
        shares: of the parts, from 0 to 1.
    """
    total: Counter[int] = sum(counts, Counter())
    lacking = [{key: share * times for key, times in total.items()} for share in shares]
    room = [share * sum(sizes) for share in shares]
    left, chosen = Counter(total), [-1] * len(sizes)
    waiting: dict[int, list[int]] = {}
    for group, of_classes in enumerate(counts):
        for key in of_classes:
            waiting.setdefault(key, []).append(group)

    def assign(group: int, part: int) -> None:
        chosen[group] = part
        room[part] -= sizes[group]
        left.subtract(counts[group])
        for key, times in counts[group].items():
            lacking[part][key] -= times

    while waiting:
        rarest = min(waiting, key=lambda key: (left[key], key))
        # Large groups first, while there is room to make up for them.
        for group in sorted(waiting.pop(rarest), key=lambda group: -counts[group][rarest]):
            if chosen[group] < 0:
                assign(group, max(range(len(shares)), key=lambda part: (lacking[part][rarest], room[part])))
    for group in sorted(range(len(sizes)), key=lambda group: -sizes[group]):
        if chosen[group] < 0:
            assign(group, max(range(len(shares)), key=lambda part: room[part]))
    return chosen


def absent(content: Content, made: Mapping[str, Content]) -> list[str]:
    """A sentence for every class that a part has no object of, though there are some."""
    return [
        f"{part} has no {name}: {images} images have one in all"
        for part, classes in lacking(content, made).items()
        for name, images in classes.items()
    ]


def lacking(content: Content, made: Mapping[str, Content]) -> dict[str, dict[str, int]]:
    """The classes that each part has no object of, though there are some, with the number of images that have one."""
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    there = {part: {a["category_id"] for a in one["annotations"] if not a.get("iscrowd")} for part, one in made.items()}
    images: dict[int, set[int]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            images.setdefault(annotation["category_id"], set()).add(annotation["image_id"])
    return {
        part: {names[key]: len(images[key]) for key in sorted(images.keys() - found)} for part, found in there.items()
    }
