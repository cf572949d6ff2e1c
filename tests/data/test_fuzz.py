"""Thousands of broken annotation files and images: each is read, or refused in one line, or counted as a problem."""

import copy
import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from queryinst.config import AugmentationConfig, DataConfig
from queryinst.data.datamodule import CocoDataModule
from queryinst.data.dataset import CocoDataset
from queryinst.data.images import ImageFile, check_header
from queryinst.data.transforms import EvaluationGeometry, TrainGeometry
from queryinst.errors import UserError
from queryinst.evaluation.coco import CocoEvaluator, table
from queryinst.inference.pictures import read
from queryinst.ops.masks import LocalMask, encode
from queryinst.structures import Detections

HEIGHT, WIDTH = 40, 50
AUGMENTATION = AugmentationConfig(
    short_sides=[32], long_side=48, test_short_side=32, crop=0.5, crop_short_sides=[32], crop_sides=[16, 32]
)
SQUARE = [10, 10, 30, 10, 30, 30.5, 10, 30]
NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]
ODD: list[Any] = [
    None, True, False, float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), 2**63, -1, 0, 1, 2, 0.5, 1e308,
    -0.0, 5e-324, "", "é", "\ud800", "a\nb", "\0", "5", "x" * 5000, "../..", "/", [], {}, [[]], [{}], [None], NESTED,
    {"id": 1}, {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}, {"size": [HEIGHT, WIDTH], "counts": "0"},
    [1, 1, 5, 5], [0, 0, 0, 0], [[1, 1, 1, 1, 1, 1]], [[1, 1, 9, 9, 1, 9]], [float("nan")] * 6, [["1"] * 6],
]  # fmt: skip


CODE = encode(LocalMask(np.ones((20, 20), np.uint8), 10, 10), (HEIGHT, WIDTH))["counts"].decode()


def content() -> dict[str, Any]:
    """Two images, and an annotation with each kind of mask; nothing in it is shared."""
    common = {"bbox": [10, 10, 20, 20.5], "area": 400.0, "iscrowd": 0}
    runs = [10 * HEIGHT + 10, 5, HEIGHT * WIDTH - 10 * HEIGHT - 15]
    tree = {
        "info": {"year": 2020},
        "images": [
            {"id": 5, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 6, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 9, "name": "cat", "supercategory": "pet"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 9, "segmentation": [SQUARE, SQUARE], **common},
            {"id": 2, "image_id": 5, "category_id": 2, "segmentation": {"size": [40, 50], "counts": runs}, **common},
            {
                "id": 3, "image_id": 6, "category_id": 2, "ignore": 0,
                "segmentation": {"size": [40, 50], "counts": CODE}, **common,
            },
        ],
    }  # fmt: skip
    return json.loads(json.dumps(tree))


def picture(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (5, 5, 3)), np.ones((8, 10, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values in a tree."""
    if way:
        yield way
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*way, key))


def mutate(data: Any, way: tuple[Any, ...], change: str, value: Any = None) -> None:
    """Replace the value at a place, delete it, or write it twice."""
    *above, last = way
    node = data
    for key in above:
        node = node[key]
    if change == "replace":
        node[last] = value
    elif change == "delete":
        del node[last]
    elif isinstance(node, list):
        node.insert(last, copy.deepcopy(node[last]))
    else:
        node[f"{last}2"] = node[last]


def kind(way: tuple[Any, ...]) -> tuple[Any, ...]:
    """What places have in common that differ by the entry or by the corner of a polygon alone."""
    whole = {"bbox", "size", "counts", "iscrowd"} & set(way)  # each number of these means something else
    return tuple(
        "any" if isinstance(key, int) and (at == 1 or not whole) and "iscrowd" not in way else key
        for at, key in enumerate(way)
    )


def changed_once() -> Iterator[tuple[Any, str]]:
    """Every kind of place with every odd value in it, and every place deleted or written twice; and what was done."""
    kinds = defaultdict(list)
    for way in places(content()):
        kinds[kind(way)].append(way)
    for alike in kinds.values():
        changes = [(way, change, None) for way in alike for change in ("delete", "repeat")]
        changes += [(alike[number % len(alike)], "replace", odd) for number, odd in enumerate(ODD)]
        for way, change, value in changes:
            data = content()
            mutate(data, way, change, value)
            yield data, f"{change} {way} {value!r:.80}"


def changed_twice(count: int) -> Iterator[tuple[Any, str]]:
    rng = random.Random(0)
    for _ in range(count):
        data, done = content(), ""
        for _ in range(2):
            way = rng.choice(list(places(data)))
            change, value = rng.choice(["replace", "replace", "delete", "repeat"]), rng.choice(ODD)
            mutate(data, way, change, copy.deepcopy(value))
            done += f"{change} {way} {value!r:.80} "
        yield data, done


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Bytes cut short, flipped, overwritten, taken out or put in."""
    out, at = bytearray(whole), rng.randrange(len(whole))
    kind, length = rng.randrange(5), rng.choice([1, 2, 8, 50])
    if kind == 0:
        del out[at:]
    elif kind == 1:
        for _ in range(length):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        out[at : at + length] = rng.randbytes(length)
    elif kind == 3:
        del out[at : at + length]
    else:
        out[at:at] = whole[at : at + length] * rng.choice([1, 3])
    return bytes(out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    (tmp_path / "b.jpg").write_bytes(picture("JPEG"))
    return tmp_path


def detection(size: tuple[int, int]) -> Detections:
    return Detections(torch.tensor([[10.0, 10, 30, 30]]), torch.ones(1), torch.tensor([0]), torch.ones(1, 28, 28), size)


def use(folder: Path, backend: str = "pycocotools") -> str:
    """All that is done with an annotation file; gives "fine", the first problem, or the sentence of a UserError."""
    data = CocoDataModule(
        DataConfig(
            root=str(folder), train_annotations="x.json", val_annotations="x.json", train_images=".", val_images="."
        ),
        AUGMENTATION,
        seed=0,
    )
    try:
        data.check()
        source = data.file("train")
        samples = CocoDataset(
            data.training_images(), TrainGeometry(AUGMENTATION), source.instances, 28, substitute=True
        )
        drawn = [samples[epoch, position] for epoch in range(2) for position in range(len(samples))]
        samples = CocoDataset(source.images, EvaluationGeometry(AUGMENTATION))
        drawn += [samples[0, position] for position in range(len(samples))]
        evaluator = CocoEvaluator(source.content, backend)
        evaluator.update([i.id for i in source.images], [detection((i.height, i.width)) for i in source.images])
        text = table(evaluator.compute(), source.categories.names) + evaluator.diagnosis
        assert text.encode(), "it can be printed"
    except UserError as error:
        return str(error)
    for sample in drawn:
        assert sample.targets.boxes.isfinite().all()
        assert sample.targets.mask_boxes.isfinite().all()
        assert sample.targets.masks.max() <= 2 if len(sample.targets.masks) else True
        assert sample.targets.labels.lt(len(source.categories)).all()
    problems = [problem for sample in drawn for problem in sample.problems]
    return problems[0] if problems else "fine"


def require_one_line(sentence: str, done: str) -> None:
    assert sentence.isprintable(), done
    assert 3 < len(sentence) < 1100, done


def test_annotation_files_with_odd_values(folder: Path):
    ends: Counter[str] = Counter()
    for number, (data, done) in enumerate([(content(), "nothing"), *changed_once(), *changed_twice(300)]):
        (folder / "x.json").write_text(json.dumps(data))
        try:
            end = use(folder, ("pycocotools", "faster_coco_eval")[number % 2])
        except Exception as error:
            raise AssertionError(f"{done}: {error!r}") from error
        require_one_line(end, done)
        ends["fine" if end == "fine" else "refused"] += 1
    assert ends["fine"] > 300
    assert ends["refused"] > 1200


def test_annotation_files_with_damaged_text(folder: Path):
    whole, rng = json.dumps(content()).encode(), random.Random(0)
    others = [b"", b"\0", b"null", b"[" * 100_000, b"1" * 5000, b"\xff\xfe", whole.decode().encode("utf-16"), whole * 2]
    ends: Counter[str] = Counter()
    for text in [*others, *(damaged(whole, rng) for _ in range(1000))]:
        (folder / "x.json").write_bytes(text)
        end = use(folder)
        require_one_line(end, repr(text))
        ends["fine" if end == "fine" else "no JSON" if "cannot be read as JSON" in end else "refused"] += 1
    assert ends["fine"] > 30
    assert ends["refused"] > 60
    assert ends["no JSON"] > 400


def read_all(image: ImageFile) -> str:
    """Read an image in every way there is; gives "fine", or the sentence of the problem that is counted."""
    for reader in (lambda: read(image.path), lambda: check_header(image)):
        try:
            reader()
        except UserError as error:
            require_one_line(str(error), "")
    sample = CocoDataset([image], EvaluationGeometry(AUGMENTATION))[0, 0]
    assert sample.image.shape[0] == 3
    assert (sample.image_id == -1) == bool(sample.problems)
    return sample.problems[0] if sample.problems else "fine"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")  # beside the sentence
def test_damaged_images(folder: Path, kind: str):
    whole, rng, image = picture(kind), random.Random(0), ImageFile(5, folder / "damaged", HEIGHT, WIDTH)
    ends: Counter[str] = Counter()
    for number in range(600 if kind in ("PNG", "JPEG") else 150):
        header = number % 2 == 0  # every other fault is in the first bytes
        image.path.write_bytes(damaged(whole[:60], rng) + whole[60:] if header else damaged(whole, rng))
        end = read_all(image)
        require_one_line(end, f"{kind} {number}")
        ends["fine" if end == "fine" else "problem"] += 1
    assert ends["problem"] > 20 < ends["fine"]


@pytest.mark.parametrize(
    "text", [b"", b"\0" * 100, b"GIF89a", b"\xff\xd8\xff", b"%PDF-1.4", b"<svg/>", b"P6 50 40 255\n"]
)
def test_files_that_are_no_images(folder: Path, text: bytes):
    (folder / "damaged").write_bytes(text)
    assert "cannot be read" in read_all(ImageFile(5, folder / "damaged", HEIGHT, WIDTH))
