"""A user's own reader of annotations and steps of augmentation, alone and in the loader."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Write, shapes_config

from queryinst.config import TrainConfig
from queryinst.data.datamodule import data_module
from queryinst.data.own import ReadFile, Steps
from queryinst.data.transforms import Instances
from queryinst.errors import UserError
from queryinst.part_config import Used
from queryinst.studies.identity import identity, run_id

CONTENT: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 3,
            "bbox": [1.0, 2.0, 8.0, 6.0],
            "area": 48.0,
            "iscrowd": 0,
            "segmentation": [[1.0, 2.0, 9.0, 2.0, 9.0, 8.0, 1.0, 8.0]],
        }
    ],
}

READER = """
    import json
    import numpy as np
    from pycocotools import mask

    class Reader:
        def __init__(self, encoding="utf-8"):
            self.encoding = encoding

        def __call__(self, path):
            content = json.loads(path.read_text(self.encoding))
            one = content["annotations"][0]
            {}
            return content
"""


def read(write: Write, change: str = "", **args: Any) -> ReadFile:
    write("my_reader.py", READER.format(change))
    path = write("labels.txt", json.dumps(CONTENT))
    return ReadFile(Used("data.reader", "reader", "my_reader:Reader", args), path, path.parent)


def test_what_a_reader_gives_is_read_as_coco(write: Write):
    file = read(write)
    assert file.content == CONTENT
    assert (file.categories.ids, file.categories.names) == ((3,), ("cat",))
    assert file.images[0].path.name == "a.png"
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["labels.txt", "my_reader.py"]  # no index


NUMPY = {
    "numbers": "one |= {'bbox': np.array(one['bbox'], np.float32), 'area': np.float32(48), 'category_id': np.int64(3)}",
    "tuples": "one['bbox'] = tuple(one['bbox']); content['images'] = tuple(content['images'])",
    "truth": "one['iscrowd'] = np.int8(0)",
}


@pytest.mark.parametrize("change", NUMPY.values(), ids=NUMPY)
def test_numbers_of_numpy_and_tuples_will_do(write: Write, change: str):
    assert read(write, change).content == CONTENT


def test_masks_of_pycocotools_will_do(write: Write):
    change = "one['segmentation'] = mask.merge(mask.frPyObjects(one['segmentation'], 20, 30))"  # counts are bytes
    file = read(write, change)
    counts = file.annotations(file.images[0])[0]["segmentation"]["counts"]
    assert isinstance(counts, str)
    (outline,) = file.instances(file.images[0]).outlines
    assert int(outline.bitmap.sum()) == 48


REFUSED = {
    "set": ("one['bbox'] = {1, 2}", "TypeError: {1, 2} is nothing that a COCO file can hold"),
    "fails": ("content['shapes']", "KeyError: 'shapes'"),
    "bytes": (r"one['segmentation'] = {'size': [20, 30], 'counts': b'\xff'}", "UnicodeDecodeError: "),
    "circle": ("one['self'] = one", "ValueError: Circular reference detected"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_reader_that_fails(write: Write, fault: str):
    change, sentence = REFUSED[fault]
    with pytest.raises(UserError) as caught:
        read(write, change)
    path = Path("labels.txt").absolute()
    assert str(caught.value).startswith(f"my_reader:Reader (data.reader) cannot read {path}: {sentence}")


def test_a_sentence_of_the_readers_own_is_kept(write: Write):
    with pytest.raises(UserError, match=r"^line 3 has no label$"):
        read(write, "from queryinst.errors import UserError; raise UserError('line 3 has no label')")


NOT_COCO = {
    "nothing": "return",
    "a list": "return [content]",
    "no categories": "del content['categories']",
    "text for a box": "one['bbox'] = 'wide'",
    "not a number": "one['bbox'][0] = float('nan')",
    "unknown image": "one['image_id'] = 9",
}


@pytest.mark.parametrize("change", NOT_COCO.values(), ids=NOT_COCO)
def test_what_is_not_coco_is_said_as_of_any_file(write: Write, change: str):
    with pytest.raises(UserError) as caught:
        read(write, change)
    assert str(Path("labels.txt").absolute()) in str(caught.value)
    assert "data.reader" not in str(caught.value)


def test_settings_reach_the_reader(write: Write):
    with pytest.raises(UserError, match="LookupError: unknown encoding: nonsense"):
        read(write, encoding="nonsense")


def test_a_path_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        ReadFile(Used("data.reader", "reader", "my_reader:Reader", {}), tmp_path / "labels", tmp_path, "; say where")
    assert (
        str(caught.value) == f"{tmp_path}/labels does not exist; expected what my_reader:Reader reads there; say where"
    )


# -- steps

STEPS = """
    import os
    import numpy as np
    from queryinst.data.transforms import Geometry

    class Add:
        def __init__(self, value):
            self.value = value

        def __call__(self, image, instances, rng):
            return image + np.uint8(self.value), instances

    class Twice:
        def __call__(self, image, instances, rng):
            return image * np.uint8(2), instances

    class Noise:
        def __call__(self, image, instances, rng):
            return rng.integers(0, 255, image.shape, np.uint8), instances.take(rng.random(len(instances)) < 0.5)

    class Halve:
        def __call__(self, image, instances, rng):
            height, width = image.shape[:2]
            half = Geometry.identity(height, width).resize(height // 2, width // 2)
            return half.image(image), half.instances(instances)

    class Fails:
        def __call__(self, image, instances, rng):
            raise ValueError("no such image")

    class Grey:
        def __call__(self, image, instances, rng):
            return image.mean(2), instances
"""


def node(name: str, **args: Any) -> dict[str, Any]:
    return {"name": f"my_steps:{name}", "args": args}


def instances() -> Instances:
    boxes = np.array([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 8.0], [1.0, 1.0, 3.0, 3.0]])
    outlines = [[np.array([[x, y], [right, y], [right, low]])] for x, y, right, low in boxes]
    return Instances(boxes, np.array([4, 5, 6]), [*outlines], tracks=np.array([7, 8, 9]))


@pytest.mark.parametrize("which", [np.array([True, False, True]), np.array([0, 2])], ids=["true", "positions"])
def test_taking_some_objects_takes_all_of_them(which: Any):
    every, some = instances(), instances().take(which)
    assert len(some) == 2
    assert some.boxes.tolist() == every.boxes[[0, 2]].tolist()
    assert (some.labels.tolist(), some.tracks.tolist()) == ([4, 6], [7, 9])
    assert [one[0].tolist() for one in some.outlines] == [every.outlines[i][0].tolist() for i in (0, 2)]


def test_taking_none_and_in_another_order():
    assert len(instances().take(np.zeros(3, bool))) == len(instances().take(np.array([], np.int64))) == 0
    assert instances().take(np.array([2, 0, 0])).labels.tolist() == [6, 4, 4]
    assert Instances.none().take(np.zeros(0, bool)).boxes.shape == (0, 4)


def test_steps_come_in_the_order_given(write: Write):
    write("my_steps.py", STEPS)
    add, twice = node("Add", value=3), {"_target_": "my_steps.Twice"}
    image, rng = np.full((4, 4, 3), 10, np.uint8), np.random.default_rng(0)
    assert Steps({"b": add, "a": twice})(image, instances(), rng)[0].max() == 26
    assert Steps({"b": twice, "a": add})(image, instances(), rng)[0].max() == 23


@pytest.fixture
def config(write: Write, workplace: Path) -> TrainConfig:
    """A run on the small data, with images as they are."""
    write("my_steps.py", STEPS)
    made = shapes_config()
    made.augmentation.short_sides, made.augmentation.flip, made.augmentation.long_side = [96], 0.0, 96
    return made


def batches(config: TrainConfig) -> list[Any]:
    data = data_module(config)
    data.prepare_data()
    loader = data.train_dataloader()
    try:
        return list(loader)
    finally:
        if config.data.num_workers and loader._iterator:
            loader._iterator._shutdown_workers()  # an error keeps it alive, and Python would wait for its processes


def test_steps_are_the_last_thing_that_happens_to_a_training_image(config: TrainConfig):
    plain = batches(config)[0]
    config.augmentation.steps = {"halve": node("Halve")}
    made = batches(config)[0]
    assert torch.equal(made.sizes, plain.sizes // 2)
    torch.testing.assert_close(made.targets.boxes, plain.targets.boxes / 2)
    assert torch.equal(made.original_sizes, plain.original_sizes)
    assert made.images.shape[2] < plain.images.shape[2]
    drawn, before = (batch.targets.masks.float().mean((1, 2)) for batch in (made, plain))
    area = (batch.targets.mask_boxes for batch in (made, plain))
    pixels = [
        share * (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        for share, box in zip((drawn, before), area, strict=True)
    ]
    torch.testing.assert_close(pixels[0] * 4, pixels[1], rtol=0.25, atol=20)


def test_validation_images_stay_as_they_are(config: TrainConfig):
    def images() -> Any:
        data = data_module(config)
        data.prepare_data()
        return next(iter(data.val_dataloader())).images

    plain = images()
    config.augmentation.steps = {"noise": node("Noise")}
    assert torch.equal(images(), plain)


def test_steps_repeat_themselves_whoever_loads(config: TrainConfig):
    config.augmentation.steps = {"noise": node("Noise")}
    here = batches(config)
    config.data.num_workers = 2
    for one, other in zip(here, batches(config), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets.boxes, other.targets.boxes)
    assert not torch.equal(here[0].images[0], here[0].images[1])
    config.seed = 1
    assert not torch.equal(batches(config)[0].images, here[0].images)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_that_fails_is_one_sentence_also_from_another_process(config: TrainConfig, workers: int):
    config.data.num_workers = workers
    config.augmentation.steps = {"fine": node("Twice"), "mine": node("Fails")}
    with pytest.raises(UserError) as caught:
        batches(config)
    path = Path("my_steps.py").absolute()
    assert str(caught.value) == f"augmentation.steps.mine fails: ValueError: no such image ({path}, line 29)"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_that_gives_something_else(config: TrainConfig, workers: int):
    config.data.num_workers = workers
    config.augmentation.steps = {"mine": node("Grey")}
    with pytest.raises(UserError) as caught:
        batches(config)
    assert str(caught.value) == (
        "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got float64 (96, 72) and "
        "Instances (queryinst/parts.py: AugmentationStep)"
    )


def test_order_and_settings_of_steps_are_part_of_a_run(config: TrainConfig):
    made = []
    for names in (["Twice", "Add"], ["Add", "Twice"]):
        config.augmentation.steps = {name: node(name, value=3) if name == "Add" else node(name) for name in names}
        made.append(run_id(identity(config)))
    config.augmentation.steps = {"Add": node("Add", value=4), "Twice": node("Twice")}
    made.append(run_id(identity(config)))
    config.augmentation.steps = {}
    made.append(run_id(identity(config)))
    assert len(set(made)) == 4
