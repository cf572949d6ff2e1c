"""`python -m queryinst.dataset split`: shares of classes and images, near-duplicates together, the same every time."""

import copy
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from kit import picture, put, read_all
from PIL import Image, ImageEnhance

from queryinst.curation.duplicates import difference_hash, groups, hashes, readable_hashes
from queryinst.curation.split import deal, split

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def coco(images: int, of_image: dict[int, list[int]], **fields: Any) -> dict[str, Any]:
    """`of_image`: the categories (1, 2, 3) of the objects of an image."""
    annotations: list[dict[str, Any]] = []
    for image, categories in of_image.items():
        for category in categories:
            box = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [SQUARE]}
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category, **box})
    files = [{"id": n, "file_name": f"{n:04d}.jpg", "height": 100, "width": 200} for n in range(1, images + 1)]
    categories_ = [{"id": key, "name": name} for key, name in ((1, "car"), (2, "bus"), (3, "kite"))]
    return {"images": files, "annotations": annotations, "categories": categories_, **fields}


def ids(content: dict[str, Any]) -> set[int]:
    return {image["id"] for image in content["images"]}


def with_class(content: dict[str, Any], key: int) -> int:
    return len({a["image_id"] for a in content["annotations"] if a["category_id"] == key})


def test_each_class_has_its_share_in_each_part():
    """Of 10 images with a rare class a fifth goes to val; by chance alone that would be 0 or 4 as often as not."""
    of_image = {
        n: [1] * (1 + n % 3) + ([2] if n % 4 == 0 else []) + ([3] if n % 20 == 0 else []) for n in range(1, 201)
    }
    content = coco(200, of_image)
    singles = [[place] for place in range(200)]
    for seed in range(5):
        made = split(content, {"train": 0.8, "val": 0.2}, singles, seed)
        assert [with_class(made["val"], key) for key in (3, 2)] == [2, 10]
        assert abs(len(made["val"]["images"]) - 40) <= 1
        assert ids(made["train"]) | ids(made["val"]) == ids(content)
        assert not ids(made["train"]) & ids(made["val"])


def test_the_split_does_not_depend_on_the_order_of_the_file_but_on_the_seed():
    content = coco(60, {n: [1 + n % 3] for n in range(1, 55)})
    singles = [[place] for place in range(60)]
    parts = {"a": 0.5, "b": 0.3, "c": 0.2}
    one = split(content, parts, singles, 0)
    mixed = copy.deepcopy(content)
    random.Random(1).shuffle(mixed["images"])
    random.Random(2).shuffle(mixed["annotations"])
    other = split(mixed, parts, singles, 0)
    assert {name: ids(part) for name, part in one.items()} == {name: ids(part) for name, part in other.items()}
    assert ids(split(content, parts, singles, 1)["a"]) != ids(one["a"])
    assert [len(part["images"]) for part in one.values()] == [30, 18, 12]


def test_a_group_goes_whole_and_the_others_make_up_for_it():
    sizes = [10] + [1] * 10
    counts = [Counter({1: size}) for size in sizes]
    assert sorted(zip(deal(sizes, counts, [0.5, 0.5]), sizes, strict=True)) == [(0, 10)] + [(1, 1)] * 10


def test_all_else_of_the_file_is_kept():
    content = coco(4, {1: [1], 2: [2], 3: [1], 4: [2]}, info={"year": 1}, licenses=[])
    content["images"][0]["coco_url"] = "x"
    made = split(content, {"a": 0.5, "b": 0.5}, [[0], [1], [2], [3]], 0)
    for part in made.values():
        assert (part["info"], part["categories"]) == ({"year": 1}, content["categories"])
        assert all(image in content["images"] for image in part["images"])
        assert all(annotation in content["annotations"] for annotation in part["annotations"])
    assert len(content["images"]) == 4


def changed(path: Path, kind: str) -> Path:
    """A near-duplicate of an image, beside it."""
    target = path.with_name(f"{path.stem}_{kind}.jpg")
    with Image.open(path) as image:
        made = {
            "copy": image,
            "small": image.resize((100, 50)),
            "bright": ImageEnhance.Brightness(image).enhance(1.2),
            "grey": image.convert("L"),
        }[kind]
        made.save(target, quality=40 if kind == "copy" else 90)
    return target


KINDS = ("copy", "small", "bright", "grey")


def test_near_duplicates_are_found_and_others_are_not(tmp_path: Path):
    paths = [picture(tmp_path / f"{seed}.png", seed=seed) for seed in range(30)]
    copies = [changed(path, kind) for path in paths[:3] for kind in KINDS]
    found = groups(np.array([difference_hash(path) for path in [*paths, *copies]]))
    assert found == [[n, *range(30 + 4 * n, 34 + 4 * n)] for n in range(3)] + [[n] for n in range(3, 30)]


def test_those_that_cannot_be_read_can_be_left_out(tmp_path: Path):
    paths = [picture(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
    broken = [put(tmp_path / "broken.png", "no image"), tmp_path / "missing.png"]
    places, codes = readable_hashes([paths[0], *broken, *paths[1:]])
    assert places == [0, 3, 4]
    assert (codes == hashes(paths)).all()
    places, codes = readable_hashes(broken)
    assert (places, codes.shape, groups(codes)) == ([], (0, 8), [])


@pytest.mark.parametrize("distance", [0, 1, 6, 15])
def test_groups_are_those_of_comparing_all_with_all(distance: int):
    rng = np.random.default_rng(distance)
    bits = rng.integers(0, 2, (12, 64), np.uint8).repeat(12, axis=0)
    bits ^= rng.random(bits.shape) < distance / 100
    codes = np.packbits(bits, axis=1)
    near = (bits[:, None] != bits[None]).sum(axis=2) <= distance
    for _ in range(8):
        near = near @ near  # what is near something near
    wanted = sorted({tuple(np.flatnonzero(row).tolist()) for row in near})
    assert [tuple(group) for group in groups(codes, distance)] == wanted


def folder_with_copies(root: Path) -> Path:
    content = coco(20, {n: [1 + n % 3] for n in range(1, 21)})
    for image in content["images"]:
        number = image["id"]
        if number > 16:  # the last four are copies of the first four
            continue
        picture(root / "images" / image["file_name"].replace(".jpg", ".png"), seed=number)
    for image in content["images"]:
        source = root / "images" / f"{(image['id'] - 1) % 16 + 1:04d}.png"
        with Image.open(source) as opened:
            opened.save(root / "images" / image["file_name"], quality=90 - image["id"])
    for path in (root / "images").glob("*.png"):
        path.unlink()
    return put(root / "all.json", content)


def test_the_command_writes_parts_that_training_reads(tmp_path: Path, run: Run):
    path = folder_with_copies(tmp_path)
    before = path.read_bytes()
    given = ["split", str(path), "--images", str(tmp_path / "images"), "--parts", "train=0.6", "val=0.4", "--seed", "3"]
    code, said = run("dataset", *given)
    assert code == 0, said
    assert "near-duplicates: 4 groups of 8 images, each kept in one part" in said
    files = {name: read_all(tmp_path / f"{name}.json", tmp_path / "images") for name in ("train", "val")}
    parts = {name: {image.id for image in file.images} for name, file in files.items()}
    assert parts["train"] | parts["val"] == set(range(1, 21))
    assert all((n in parts["train"]) == (n + 16 in parts["train"]) for n in range(1, 5))
    assert 7 <= len(parts["val"]) <= 9
    assert path.read_bytes() == before
    made = [(tmp_path / f"{name}.json").read_bytes() for name in parts]
    code, said = run("dataset", *given, "--to", str(tmp_path / "again"))
    assert [(tmp_path / "again" / f"{name}.json").read_bytes() for name in parts] == made
    code, said = run("dataset", *given)
    assert (code, "train.json exists already" in said) == (2, True)


def test_what_cannot_be_split_evenly_is_said(tmp_path: Path, run: Run):
    path = put(tmp_path / "all.json", coco(12, {n: [1] for n in range(1, 12)} | {12: [2]}))
    code, said = run("dataset", "split", str(path), "--no-duplicates")
    assert (code, "val has no bus: 1 images have one in all" in said) == (0, True), said
    for number in range(1, 13):
        picture(tmp_path / f"images/{number:04d}.jpg", seed=1)
    given = ["split", str(path), "--images", str(tmp_path / "images"), "--to", str(tmp_path / "b")]
    code, said = run("dataset", *given)
    assert (code, "the largest group is larger than the smallest part should be" in said) == (0, True), said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--images FOLDER is needed to keep near-duplicates together"),
        (["--parts", "a=0.5", "b=0.6", "--no-duplicates"], "--parts a=0.5 b=0.6: wanted different names, and shares"),
        (["--parts", "a=0.5", "a=0.5", "--no-duplicates"], "wanted different names"),
        (["--parts", "a", "--no-duplicates"], "--parts has 'a'; wanted NAME=SHARE"),
        (["--parts", "../a=1", "--no-duplicates"], "--parts has '../a=1'; wanted NAME=SHARE"),
        (["--images", "{}", "--distance", "16"], "--distance 16: wanted 0 to 15 bits"),
        (["--images", "{}"], "0001.jpg cannot be read as an image"),
    ],
)
def test_what_is_said_of_what_cannot_be_done(arguments: list[str], sentence: str, tmp_path: Path, run: Run):
    path = put(tmp_path / "all.json", coco(4, {1: [1]}))
    code, said = run("dataset", "split", str(path), *[word.format(tmp_path) for word in arguments])
    assert (code, sentence in said, said.count("\n")) == (2, True, 1), said
    assert [p.name for p in tmp_path.iterdir()] == ["all.json"]


def test_a_broken_file_is_sent_to_fix(tmp_path: Path, run: Run):
    content = coco(4, {1: [1], 9: [1]})
    code, said = run("dataset", "split", str(put(tmp_path / "all.json", content)), "--no-duplicates")
    assert code == 2
    assert "names image 9, which is not among the 4 images; python -m queryinst.dataset fix mends" in said
    assert json.loads((tmp_path / "all.json").read_text()) == content
