"""Splits, filters and batches of a training run."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from queryinst.config import AugmentationConfig, DataConfig, ShapesConfig
from queryinst.data.datamodule import CocoDataModule
from queryinst.errors import UserError
from queryinst.structures import Batch

AUGMENTATION = AugmentationConfig(short_sides=[64], long_side=64, test_short_side=64)


def module(root: Path, accumulate: int = 1, **settings: object) -> CocoDataModule:
    config = DataConfig(
        root=str(root),
        train_images="images/train",
        train_annotations="annotations/instances_train.json",
        val_images="images/val",
        val_annotations="annotations/instances_val.json",
        batch_size=4,
        num_workers=0,
    )
    for name, value in settings.items():
        setattr(config, name, value)
    return CocoDataModule(config, AUGMENTATION, seed=0, accumulate=accumulate)


def edit(root: Path, split: str, change: object) -> None:
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))


def test_empty_and_small_images_are_left_out_where_asked(shapes_root: Path):
    edit(shapes_root, "train", lambda c: c.update(annotations=[a for a in c["annotations"] if a["image_id"] > 5]))
    content = json.loads((shapes_root / "annotations" / "instances_train.json").read_text())
    images = {image["id"]: min(image["height"], image["width"]) for image in content["images"]}
    full = {a["image_id"] for a in content["annotations"] if not a["iscrowd"]}
    large = {key for key, side in images.items() if side >= 96}
    assert 0 < len(full) < 20 < 24 > len(large) > len(large & full) > 0

    def kept(**settings: object) -> set[int]:
        return {image.id for image in module(shapes_root, **settings).training_images()}

    assert kept(keep_empty=True) == set(images)
    assert kept() == full
    assert kept(keep_empty=True, min_image_side=96) == large
    assert kept(min_image_side=96) == large & full
    with pytest.raises(UserError, match="no image to train on: none with objects and sides of 1000 pixels"):
        module(shapes_root, min_image_side=1000).training_images()


def test_batches_and_workers_give_the_same(shapes_root: Path):
    def images(workers: int) -> list[Batch]:
        return list(module(shapes_root, num_workers=workers, keep_empty=True).train_dataloader())

    alone, helped = images(0), images(2)
    assert len(alone) == module(shapes_root, keep_empty=True).batches_per_epoch() == 6
    assert [batch.image_ids for batch in alone] == [batch.image_ids for batch in helped]
    assert all((a.images == b.images).all() for a, b in zip(alone, helped, strict=True))


def test_objects_are_pasted_in_training_alone(shapes_root: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where loader processes do it, and where an epoch is gone on with in its middle."""

    def batches(copy_paste: float, workers: int = 0, begin: int = 0) -> list[Batch]:
        monkeypatch.setattr(AUGMENTATION, "copy_paste", copy_paste)
        data = module(shapes_root, num_workers=workers, keep_empty=True)
        data.load_state_dict({"begin": (0, begin), "problems": {}})
        return list(data.train_dataloader())

    plain, pasted, helped, resumed = batches(0.0), batches(1.0), batches(1.0, workers=2), batches(1.0, begin=4)
    assert [batch.image_ids for batch in plain] == [batch.image_ids for batch in pasted]
    assert sum(len(b.targets.boxes) for b in pasted) > 1.2 * sum(len(b.targets.boxes) for b in plain)
    for others, ours in ((helped, pasted), (resumed, pasted[4:])):
        for a, b in zip(others, ours, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.targets.masks, b.targets.masks)
    evaluated = next(iter(module(shapes_root).val_dataloader()))
    monkeypatch.setattr(AUGMENTATION, "copy_paste", 0.0)
    assert torch.equal(evaluated.images, next(iter(module(shapes_root).val_dataloader())).images)


def test_batch_size_is_that_of_a_step(shapes_root: Path):
    assert module(shapes_root, accumulate=2).per_device() == 2
    assert module(shapes_root, accumulate=2, keep_empty=True).batches_per_epoch() == 12
    assert module(shapes_root, keep_empty=True).batches_per_epoch(limit=3) == 3
    with pytest.raises(
        UserError,
        match="data.batch_size=4 cannot be divided over 1 devices and 3 accumulated batches: give a multiple of 3",
    ):
        module(shapes_root, accumulate=3).per_device()


def test_unreadable_images_are_counted(shapes_root: Path):
    victims = sorted((shapes_root / "images" / "train").iterdir())[:2]
    for path in victims:
        path.write_bytes(b"no image")

    def epoch(allowed: int) -> CocoDataModule:
        data = module(shapes_root, keep_empty=True, max_bad_images=allowed)
        for batch in data.train_dataloader():
            data.count_problems(batch)
        return data

    assert len(epoch(2).problems) == 2
    with pytest.raises(UserError, match=r"data\.max_bad_images=2 would replace it"):
        epoch(1)


def test_splits_must_have_the_same_classes_and_something_to_find(shapes_root: Path):
    edit(shapes_root, "val", lambda c: c["categories"].append({"id": 91, "name": "heart"}))
    with pytest.raises(
        UserError, match=r"differ in their categories: only in training none, only in validation \[\(91, 'heart'\)\]"
    ):
        module(shapes_root).check()
    edit(shapes_root, "val", lambda c: (c["categories"].pop(), c.update(annotations=[])))
    with pytest.raises(UserError, match="has no objects to find"):
        module(shapes_root).check()


def test_missing_images_are_found_before_training(shapes_root: Path):
    for split in ("train", "val"):
        victim = sorted((shapes_root / "images" / split).iterdir())[1]
        content = victim.read_bytes()
        victim.unlink()
        with pytest.raises(
            UserError, match=rf"1 of the \d+ images of .*{split}\.json do not exist, first .*{victim.name}"
        ):
            module(shapes_root, keep_empty=True).check()
        if split == "train":
            module(shapes_root, keep_empty=True, max_bad_images=1).check()
        victim.write_bytes(content)
    module(shapes_root, keep_empty=True).check()


def test_missing_folder_says_what_was_expected(tmp_path: Path):
    with pytest.raises(UserError, match=r"the data folder .* does not exist \(data.root=.*data.train_annotations=FILE"):
        module(tmp_path / "nothing").check()


def test_the_embedded_data_is_made_on_first_use(tmp_path: Path):
    data = module(tmp_path / "shapes", shapes=ShapesConfig(train=3, val=2, side=64))
    data.prepare_data()
    assert len(data.file("train").images) == 3


def test_nothing_to_learn(shapes_root: Path):
    path = shapes_root / "annotations" / "instances_train.json"
    whole = path.read_text()
    for change in ({"iscrowd": 1}, {"bbox": [500, 500, 5, 5]}, {"bbox": [2, 2, 0.1, 0.1]}):
        path.write_text(whole)  # each alone
        edit(shapes_root, "train", lambda c, change=change: [a.update(change) for a in c["annotations"]])
        with pytest.raises(UserError, match="has no object to learn"):
            module(shapes_root, keep_empty=True).check()
        with pytest.raises(UserError, match="no image to train on"):
            module(shapes_root).check()


@pytest.mark.parametrize("content", [b"", b"text", "folder", "small"])
def test_a_broken_validation_image_is_found_before_training(shapes_root: Path, content: bytes | str):
    path = sorted((shapes_root / "images" / "val").iterdir())[2]
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "small":
        Image.new("RGB", (1, 1)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"image 500003 .*(cannot be read|is 1x1, but its annotations say)"):
        module(shapes_root).check()


def test_steps_of_an_epoch_are_what_the_loader_gives(shapes_root: Path):
    """Also where grouping by aspect ratio leaves out a part of a batch of each kind: the schedule counts these."""
    for group in (False, True):
        for batch in (2, 5, 7):
            data = module(shapes_root, keep_empty=True, group_by_aspect=group, batch_size=batch)
            assert data.batches_per_epoch() == len(data.train_dataloader()) == len(list(data.train_dataloader()))
