"""The data doctor: a twin of `shapes` with every fault once, a clean one, and files that nobody would write."""

import contextlib
import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT, Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from queryinst.config import DataConfig
from queryinst.data import validation
from queryinst.data.doctor import Report, as_text, examine
from queryinst.data.doctor_annotations import Listed
from queryinst.data.doctor_annotations import examine as examine_content
from queryinst.data.doctor_images import faults as image_faults
from queryinst.data.faults import FIRST, RULES, Findings
from queryinst.errors import UserError

HEIGHT, WIDTH = 80, 100
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
NAN = float("nan")


class Twin:
    """A copy of `shapes_tiny` without the category that never occurs, and ways to break it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[str, Any] = {}
        for split in ("train", "val"):
            content = json.loads(self.file(split).read_text())
            content["categories"] = [c for c in content["categories"] if c["name"] != "hexagon"]
            for field, first in (("annotations", {"train": 1, "val": 1001}[split]),):
                for number, entry in enumerate(content[field], first):
                    entry["id"] = number
            self.content[split] = content
            self.save()
        self.added = 0

    def file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}.json"

    def save(self) -> None:
        for split, content in self.content.items():
            self.file(split).write_text(json.dumps(content))

    def examine(self, **settings: Any) -> Report:
        self.save()
        return examine(self.data(), **settings)

    def data(self) -> DataConfig:
        names = {f"{split}_images": f"images/{split}" for split in ("train", "val")}
        files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
        return DataConfig(root=str(self.root), **names, **files)

    def picture(self, name: str = "", mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **how: Any) -> Path:
        """A new image file with a sound image entry, unlike any other."""
        self.added += 1
        path = self.root / "images" / "train" / (name or f"new_{self.added}.png")
        paint = Image.new("RGB", size, (self.added, self.added // 256, 7)).convert(mode)
        paint.save(path, **how)
        return path

    def image(self, path: Path | None = None, **changes: Any) -> dict[str, Any]:
        """A new image with one sound object."""
        path = path or self.picture()
        image = {"id": 10_000 + self.added, "file_name": path.name, "height": HEIGHT, "width": WIDTH, **changes}
        self.content["train"]["images"].append(image)
        self.object(image_id=image["id"])
        return image

    def object(self, **changes: Any) -> dict[str, Any]:
        """A new annotation, of a new image unless it names one; `...` leaves a field out."""
        if "image_id" not in changes:
            changes["image_id"] = self.image()["id"]
        shift = 25 if "bbox" not in changes and "segmentation" not in changes else 0
        shift = shift * sum(a["image_id"] == changes["image_id"] for a in self.content["train"]["annotations"])
        annotation = {
            "id": 1 + max(a["id"] for a in self.content["train"]["annotations"]),
            "category_id": 3,
            "bbox": [10 + shift, 10, 20, 20],
            "iscrowd": 0,
            "area": 400,
            "segmentation": [[v + shift if n % 2 == 0 else v for n, v in enumerate(SQUARE)]],
            **changes,
        }
        self.content["train"]["annotations"].append({k: v for k, v in annotation.items() if v is not ...})
        return self.content["train"]["annotations"][-1]


def rectangle(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """Box and polygon of an object."""
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"bbox": [x, y, width, height], "segmentation": [outline], "area": width * height}


def rle(counts: Any, size: Any = (HEIGHT, WIDTH), **changes: Any) -> dict[str, Any]:
    return {"segmentation": {"size": list(size), "counts": counts}, "bbox": [0, 0, 5, 5], "area": 25, **changes}


def truncated(twin: Twin) -> None:
    path = twin.picture("cut.jpg")
    Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    twin.image(path)


def rotated(twin: Twin, **size: int) -> None:
    note = Image.Exif()
    note[274] = 6
    twin.image(twin.picture(f"turned_{len(size)}.jpg", exif=note), **size)


def sixteen(twin: Twin) -> None:
    path = twin.picture("deep.png")
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 40_000, np.uint16))
    twin.image(path)


def shared(twin: Twin) -> None:
    first = twin.content["val"]["images"][0]
    path = twin.root / "images" / "train" / "again.jpg"
    path.write_bytes((twin.root / "images" / "val" / first["file_name"]).read_bytes())
    twin.added += 1
    twin.image(path, height=first["height"], width=first["width"])


def unused(twin: Twin) -> None:
    for content in twin.content.values():
        content["categories"].append({"id": 95, "name": "heart"})
    twin.object(category_id=95)


def unreadable(twin: Twin) -> None:
    path = twin.picture("text.png")
    path.write_text("no picture")
    twin.image(path)


def missing(twin: Twin) -> None:
    path = twin.picture()
    path.unlink()
    twin.image(path)


def category(twin: Twin, **changes: Any) -> None:
    """A category in both files, with an object in each; the changes in training only."""
    entry = {"id": 96, "name": "cloud"}
    twin.content["val"]["categories"].append(entry)
    twin.content["train"]["categories"].append({**entry, **changes})


def absent(twin: Twin) -> None:
    twin.content["train"]["annotations"] = [
        a for a in twin.content["train"]["annotations"] if a["image_id"] != twin.content["train"]["images"][0]["id"]
    ]


def named(twin: Twin) -> None:
    """An absolute name, which Python's paths take as it is."""
    path = twin.picture()
    twin.image(path, file_name=str(path))


def twice(twin: Twin, entries: str, /, **changes: Any) -> None:
    twin.content["train"][entries].append({**twin.content["train"][entries][-1], **changes})


def crowd_of_polygons(twin: Twin) -> None:
    twin.object(image_id=twin.image()["id"], iscrowd=1)


def root(content: dict[str, Any]) -> None:
    """Roboflow's: called as the project, without annotations, and with the name of a class."""
    content["categories"].append({"id": 97, "name": "disc", "supercategory": "none"})
    content["categories"].append({"id": 98, "name": "disc", "supercategory": "disc"})


def parent(content: dict[str, Any]) -> None:
    content["categories"].append({"id": 94, "name": "things", "supercategory": "none"})
    content["categories"].append({"id": 93, "name": "thing", "supercategory": "things"})


def many(twin: Twin) -> None:
    image = twin.image()
    for number in range(100):
        twin.object(image_id=image["id"], **rectangle(number % 10 * 9, 40 + number // 10 * 3, 5, 2))


def id_twice(twin: Twin) -> None:
    entry = twin.object()
    entry["id"] = twin.content["train"]["annotations"][-2]["id"]


Break = Callable[[Twin], Any]
FAULTS: dict[str, Break] = {
    "missing-field": lambda t: t.object(bbox=...),
    "id-kind": lambda t: twice(t, "categories", id="three", name="letter"),
    "duplicate-images-id": lambda t: t.content["train"]["images"].append(
        {**t.content["train"]["images"][0], "file_name": t.picture().name, "height": HEIGHT, "width": WIDTH}
    ),
    "duplicate-categories-id": lambda t: t.content["train"]["categories"].append({"id": 3, "name": "disc"}),
    "file-name": lambda t: t.image(file_name=None),
    "size-field": lambda t: t.image(height="tall"),
    "dangling-image": lambda t: t.object(image_id=777),
    "unknown-category": lambda t: t.object(category_id=777),
    "box-values": lambda t: t.object(bbox=[1, 2, NAN, 4]),
    "box-negative": lambda t: t.object(bbox=[30, 30, -20, 20]),
    "iscrowd-value": lambda t: t.object(iscrowd="no"),
    "area-value": lambda t: t.object(area="large"),
    "mask-empty": lambda t: t.object(bbox=[50, 40, 9, 9], segmentation=[], area=81),
    "polygon-brackets": lambda t: t.object(segmentation=[SQUARE, [[1, 2], 3]]),
    "annotation-empty": lambda t: t.object(bbox=[NAN] * 4, segmentation=[], area=0),
    "number-as-text": lambda t: t.object(**{**rectangle(50, 40, 20, 20), "bbox": ["50", 40, "20", 20.0]}),
    "mask-brackets": lambda t: t.object(
        **{**rectangle(40, 40, 20, 20), "segmentation": [40, 40, 60, 40, 60, 60, 40, 60]}
    ),
    "mask-part": lambda t: t.object(
        **{**rectangle(41, 41, 20, 20), "segmentation": [[41, 41, 61, 41, 61, 61, 41, 61], [50, 50]]}
    ),
    "many-objects": many,
    "file-name-other": lambda t: t.image(t.picture("a b.png"), file_name="a%20b.png"),
    "mask-kind": lambda t: t.object(segmentation="mask.png"),
    "polygon-points": lambda t: t.object(segmentation=[[1, 2, 3, 4]]),
    "polygon-values": lambda t: t.object(segmentation=[[1, 2, 3, 4, 5, NAN]]),
    "rle-size": lambda t: t.object(**rle([8000], (WIDTH, HEIGHT))),
    "rle-counts": lambda t: t.object(**rle([5, 6])),
    "not-understood": lambda t: t.object(category_id=[3]),
    "box-xyxy": lambda t: t.object(**{**rectangle(40, 40, 15, 20), "bbox": [40, 40, 55, 60]}),
    "box-outside": lambda t: t.object(bbox=[WIDTH + 5, 10, 20, 20], segmentation=[[97, 10, 99, 10, 99, 30]]),
    "mask-far-from-box": lambda t: t.object(bbox=[60, 50, 20, 20], segmentation=[SQUARE]),
    "duplicate-file": lambda t: (
        t.image(t.picture("twice.png")) and t.image(t.root / "images/train/twice.png", id=9_001)
    ),
    "shared-image": shared,
    "duplicate-annotation-id": id_twice,
    "annotation-id-0": lambda t: t.object(id=0),
    "duplicate-object": lambda t: t.object(**rectangle(5, 5, 20, 20)) and twice(t, "annotations", id=9_999),
    "box-overhangs": lambda t: t.object(bbox=[10, 10, WIDTH, 20], segmentation=[[10, 10, 99, 10, 99, 30, 10, 30]]),
    "box-degenerate": lambda t: t.object(**{**rectangle(50, 50, 0.5, 20), "area": 5}),
    "mask-flat": lambda t: t.object(segmentation=[[40, 10, 40, 20, 40, 30]], bbox=[40, 10, 1, 20], area=9),
    "polygon-outside": lambda t: t.object(bbox=[70, 10, 30, 20], segmentation=[[70, 10, 110, 10, 110, 30, 70, 30]]),
    "area-not-positive": lambda t: t.object(area=0),
    "area-above-box": lambda t: t.object(area=5000),
    "crowd-without-rle": crowd_of_polygons,
    "category-unused": unused,
    "image-without-objects": absent,
    "image-small": lambda t: t.image(t.picture(size=(31, 40)), width=31, height=40),
    "file-name-path": named,
    "image-missing": missing,
    "image-unreadable": unreadable,
    "image-truncated": truncated,
    "image-size": lambda t: t.image(t.picture(size=(50, 50))),
    "image-turned": lambda t: rotated(t, height=WIDTH, width=HEIGHT),
    "image-32-bit": lambda t: t.image(t.picture("float.tif", mode="F")),
    "image-16-bit": lambda t: t.image(t.picture(mode="I;16")),
    "image-rotated": rotated,
    "image-cmyk": lambda t: t.image(t.picture("print.jpg", mode="CMYK")),
    "image-reduced": sixteen,
    "image-alpha": lambda t: t.image(t.picture(mode="RGBA")),
    "image-frames": lambda t: t.image(
        t.picture("film.gif", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), "red")])
    ),
}


def whole(change: Callable[[dict[str, Any]], Any], splits: tuple[str, ...] = ("train",)) -> Break:
    """A fault of a whole file, beside which others are not seen."""

    def apply(twin: Twin) -> None:
        for split in splits:
            change(twin.content[split])

    return apply


def every(entries: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for entry in content[entries]:
            entry.update({key: value(entry[key]) if callable(value) else value for key, value in values.items()})

    return change


def places(content: dict[str, Any], start: int) -> None:
    """Categories counted from `start`."""
    ids = {entry["id"]: number for number, entry in enumerate(content["categories"], start)}
    every("categories", id=ids.get)(content)
    every("annotations", category_id=ids.get)(content)


def between(twin: Twin) -> None:
    for split, start in (("train", 1), ("val", 0)):
        content = twin.content[split]
        places(content, start)
        content["categories"] = [{"id": key, "name": f"c{key}"} for key in range(8)]
        for number, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = start + number % 7
            annotation["iscrowd"] = 0


def shifted(twin: Twin) -> None:
    places(twin.content["train"], 1)
    places(twin.content["val"], 0)


def from_zero(twin: Twin) -> None:
    shifted(twin)
    twin.content["val"]["categories"] = copy.deepcopy(twin.content["train"]["categories"])


WHOLE: dict[str, Break] = {
    "not-utf8": lambda twin: twin.content.pop("val") and twin.file("val").write_bytes(b'{"images": "\xb3\xb5"}'),
    "category-root": whole(root),
    "category-parent": whole(parent),
    "crowd-many": whole(every("annotations", iscrowd=1)),
    "coordinates-fractions": whole(every("annotations", bbox=lambda box: [value / 100 for value in box])),
    "other-format": lambda twin: twin.content.update(val={"shapes": [], "imagePath": "a.jpg"}),
    "not-coco": whole(lambda content: content.pop("images")),
    "not-json": lambda twin: twin.content.pop("val") and twin.file("val").write_text('{"images": ['),
    "no-categories": whole(lambda content: content["categories"].clear()),
    "no-images": whole(lambda content: content["images"].clear()),
    "area-all-zero": whole(every("annotations", area=0)),
    "no-objects": whole(lambda content: content["annotations"].clear()),
    "categories-shifted": shifted,
    "labels-shifted": from_zero,
    "labels-shifted-between": between,
    "categories-differ": whole(lambda content: content["categories"].append({"id": 99, "name": "heart"})),
    "duplicate-category-name": lambda t: category(t, name="circle"),
    "unprintable-category-name": lambda t: category(t, name="a\nb"),
    "category-name": lambda t: category(t, name=None),
}


def counts(report: Report) -> Counter[str]:
    return Counter({finding.code: 0 for finding in report.findings}) + Counter(
        code for finding in report.findings for code in [finding.code] * finding.times
    )


@pytest.fixture
def twin(shapes_root: Path) -> Twin:
    return Twin(shapes_root)


def test_shapes_has_no_fault(twin: Twin):
    report = twin.examine()
    assert counts(report) == {}
    assert report.clean
    survey = report.surveys["train"]
    assert len(survey.sizes) == len(survey.objects) == 24
    assert sum(survey.objects) == survey.used.total() == len(survey.aspects) == len(survey.areas)


def test_every_kind_of_fault_has_a_test():
    assert FAULTS.keys() | WHOLE.keys() == RULES.keys()
    assert not FAULTS.keys() & WHOLE.keys()
    assert len(RULES) >= 25
    for page in ("README.md", "CHANGELOG.md"):
        assert f"{len(RULES)} kinds of fault" in (ROOT / page).read_text()
    for code, rule in RULES.items():
        assert rule.severity in ("error", "warning")
        assert re.fullmatch(r"[a-z0-9-]+", code)
        assert len(rule.advice) > 10


def test_a_broken_twin_has_every_fault_once(twin: Twin):
    for change in FAULTS.values():
        change(twin)
    assert counts(twin.examine()) == dict.fromkeys(FAULTS, 1)


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_alone_is_not_taken_for_another(twin: Twin, code: str):
    FAULTS[code](twin)
    report = twin.examine()
    assert counts(report) == {code: 1}
    assert report.clean == (RULES[code].severity == "warning")


@pytest.mark.parametrize("code", WHOLE)
def test_faults_of_a_whole_file(twin: Twin, code: str):
    WHOLE[code](twin)
    report = twin.examine(images="none")
    assert counts(report)[code] == 1
    assert report.clean == all(RULES[found].severity == "warning" for found in counts(report))


@pytest.mark.parametrize("code", [*FAULTS, *WHOLE])
def test_training_stops_where_the_doctor_finds_what_it_cannot_use(twin: Twin, code: str):
    """The two share the rules of queryinst.data.validation."""
    (FAULTS | WHOLE)[code](twin)
    for content in twin.content.values():
        content = json.loads(json.dumps(content))
        codes = [fault.code for fault in validation.faults(content)]
        assert set(codes) <= RULES.keys()
        with pytest.raises(UserError, match=r"^file\.json( |: )") if codes else contextlib.nullcontext():
            validation.check_content(content, Path("file.json"))


def test_only_the_first_are_kept_and_all_are_counted(twin: Twin):
    for _ in range(FIRST + 3):
        twin.object(area=0)
    report = twin.examine(images="none")
    (finding,) = report.findings
    assert (finding.times, len(finding.first), finding.split) == (FIRST + 3, FIRST, "train")
    assert all(re.fullmatch(r"annotation \d+", where) for where in finding.first)
    line = as_text(report, "shapes").splitlines()[2]
    assert line.startswith("warning  train  area-not-positive: 8 x ")
    assert finding.first[0] in line
    assert ", ...]" in line


def test_headers_only_do_not_see_the_end_of_a_file(twin: Twin):
    truncated(twin)
    assert counts(twin.examine(images="headers")) == {}
    missing(twin)
    assert counts(twin.examine(images="headers")) == {"image-missing": 1}
    assert counts(twin.examine(images="none")) == {}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["..\x00", "a\nb", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def leaves(node: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values of a JSON content."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [way, *(found for key, value in inner for found in leaves(value, (*way, key)))]


SMALL = {
    "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 50}],
    "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 7, "image_id": 5, "category_id": 9, "bbox": [9, 9, 21, 21], "segmentation": [SQUARE], "area": 9},
        {"id": 8, "image_id": 5, "category_id": 2, "bbox": [9, 9, 21, 21], "iscrowd": 1}
        | {"segmentation": {"size": [40, 50], "counts": [500, 1500]}},
    ],
}


@given(data=st.data(), times=st.integers(1, 3))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_json_is_too_strange(data: st.DataObject, times: int):
    content: Any = copy.deepcopy(SMALL)
    for _ in range(times):
        *way, last = data.draw(st.sampled_from(leaves(content)[1:] or [("images",)]))
        node = content
        for step in way:
            node = node[step]
        node[last] = data.draw(JSON)
    findings = Findings()
    survey = examine_content(content, Path("nowhere"), "train", findings, 32, False)
    assert all(image_faults(image, decode=True) for image in survey.images)
    lines = as_text(Report(findings, {"train": survey}), "strange").split("\n")
    assert len(lines) == 2 + len(list(findings))
    assert all(line.isprintable() for line in lines)
    assert {finding.code for finding in findings} <= RULES.keys()
    errors = [fault.code for fault in validation.faults(content)]
    assert set(errors) <= {finding.code for finding in findings}


@pytest.mark.parametrize("content", [None, 5, "text", [], {}, [[]], {"images": {}, "annotations": 3, "categories": ""}])
def test_no_root_is_too_strange(content: Any):
    findings = Findings()
    examine_content(content, Path("nowhere"), "val", findings, 32, False)
    assert "not-coco" in {finding.code for finding in findings}


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_no_bytes_are_too_strange(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    image = Listed("image 1", path, HEIGHT, WIDTH)
    note = Image.Exif()
    note[274] = 6
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path, exif=note)
    sound, found = path.read_bytes(), set()
    for number in range(60):
        damaged = np.frombuffer(sound, np.uint8).copy()
        damaged[rng.integers(0, min(len(sound), 400 if number % 2 else len(sound)), 5)] = rng.integers(0, 256, 5)
        path.write_bytes(damaged.tobytes()[: int(rng.integers(0, len(sound))) if number % 3 == 0 else None])
        found |= set(image_faults(image, decode=True))
    in_part = set() if kind == "webp" else {"image-truncated"}  # of a WebP Pillow reads all or nothing
    assert {"image-unreadable"} | in_part <= found <= RULES.keys()


def test_the_command(twin: Twin, tmp_path: Path, run: Run):
    twin.save()
    data = twin.data()
    settings = ["data=coco", *(f"data.{key}={getattr(data, key)}" for key in ("root", "train_images", "val_images"))]
    settings += [f"data.{key}={getattr(data, key)}" for key in ("train_annotations", "val_annotations")]
    code, text = run("doctor", *settings, f"json={tmp_path}/found/report.json", f"picture={tmp_path}/seen.png")
    assert code == 0, text
    assert text.splitlines()[0].startswith("coco train: 24 images, ")
    assert text.strip().splitlines()[-1].startswith("clean: 0 errors, 0 warnings; ")
    written = json.loads((tmp_path / "found" / "report.json").read_text())
    assert written["clean"]
    assert written["splits"]["val"]["images"] == 8
    picture = cv2.imread(str(tmp_path / "seen.png"))
    assert picture.shape == (900, 1120, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10

    twin.object(bbox=[1, 2, 3])
    twin.save()
    code, text = run("doctor", *settings, "json=-", "images=none")
    assert code == 1
    assert [(fault["code"], fault["count"]) for fault in json.loads(text)["faults"]] == [("box-values", 1)]
    code, text = run("train", *settings)
    assert code == 2
    assert "has box [1, 2, 3]; wanted four numbers" in text


def test_one_file_is_looked_at_and_not_divided(twin: Twin, run: Run):
    shutil.copytree(twin.root / "images" / "train", twin.root / "pictures")
    file = twin.file("train").rename(twin.root / "pictures" / "result.json")
    for folder in ("annotations", "images"):
        shutil.rmtree(twin.root / folder)
    code, said = run("doctor", "data=coco", f"data.root={twin.root}")
    assert (code, "coco train: 24 images" in said, "val:" in said) == (0, True, False), said
    assert "note: only pictures/result.json is there, and looked at; training keeps a fifth of it" in said
    assert [path.name for path in twin.root.iterdir()] == ["pictures"]
    content = twin.content["train"]
    content["annotations"][0]["image_id"] = 77777
    file.write_text(json.dumps(content))
    code, said = run("doctor", "data=coco", f"data.root={twin.root}", "images=none", "json=-")
    report = json.JSONDecoder().raw_decode(said[said.index("{") :])[0]
    assert (code, list(report["splits"])) == (1, ["train"])
    assert [fault["split"] for fault in report["faults"]] == ["train"] * len(report["faults"])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("data.root=gone", "the data folder gone does not exist"),
        (
            "data.train_annotations=annotations/no.json",
            "no.json does not exist; .* its folder has instances_train.json",
        ),
        ("data.val_images=pictures", "is not a folder"),
        ("json=.", "json=. is a folder; give a file"),
        ("picture=seen.txt", "picture takes a file that ends in .png or .jpg; got 'seen.txt'"),
        ("images=some", "images takes one of decode, headers, none"),
    ],
)
def test_mistakes_of_the_user(workplace: Path, run: Run, setting: str, sentence: str):
    code, text = run("doctor", "data=shapes_tiny", "data.shapes=null", setting)
    assert code == 2
    assert re.search(sentence, text)
    assert text.count("\n") == 1
