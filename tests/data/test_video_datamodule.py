"""Splits and batches of a training run on video."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from queryinst.config import DataConfig, TrainConfig
from queryinst.data.datamodule import CocoDataModule, VideoDataModule, data_module
from queryinst.errors import UserError
from queryinst.studies.command import compose
from queryinst.studies.identity import identity, run_id


def config(*overrides: str) -> TrainConfig:
    made = compose(
        "config", TrainConfig, ["data=shapes_video_tiny", "data.batch_size=8", "model=tiny_video", *overrides]
    )
    assert isinstance(made, TrainConfig)
    return made


def module(root: Path, *overrides: str) -> VideoDataModule:
    data = data_module(config(f"data.root={root}", *overrides))
    assert isinstance(data, VideoDataModule)
    data.prepare_data()
    return data


def edit(root: Path, split: str, change: Any) -> None:
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_images_or_video():
    assert type(data_module(compose("config", TrainConfig, []))) is CocoDataModule
    assert DataConfig().video is None


def test_batches_are_pairs_and_the_same_with_workers(clips_source: Path):
    data = module(clips_source)
    data.check()
    alone, helped = (list(module(clips_source, f"data.num_workers={w}").train_dataloader()) for w in (0, 2))
    assert len(alone) == data.batches_per_epoch() == 24 // 4
    assert [batch.image_ids for batch in alone] == [batch.image_ids for batch in helped]
    assert all((a.images == b.images).all() for a, b in zip(alone, helped, strict=True))
    keys = [key for batch in alone for key in batch.image_ids[::2]]
    assert sorted(keys) == list(range(24)), "every frame once"
    places = data.video_file("train").places
    for batch in alone:
        assert len(batch.image_ids) == 8
        for key, reference in zip(batch.image_ids[::2], batch.image_ids[1::2], strict=True):
            assert places[key][0] == places[reference][0]
            assert key != reference


def test_resuming_within_an_epoch_goes_on_with_the_same_pairs(clips_source: Path):
    whole = list(module(clips_source).train_dataloader())
    again = module(clips_source)
    again.load_state_dict({"begin": [0, 4], "problems": {}})
    rest = list(again.train_dataloader())
    assert [batch.image_ids for batch in rest] == [batch.image_ids for batch in whole[4:]]
    assert torch.equal(rest[1].images, whole[5].images)


def test_pairs_must_fit_into_a_batch(clips_source: Path):
    assert module(clips_source, "trainer.accumulate=2").per_device() == 4
    assert module(clips_source, "trainer.accumulate=2").batches_per_epoch() == 12
    with pytest.raises(UserError, match=r"data\.batch_size=6 makes a batch of 3 images .* give a multiple of 4"):
        module(clips_source, "data.batch_size=6", "trainer.accumulate=2").check()
    with pytest.raises(UserError, match=r"data\.batch_size=7 .* pairs, .* give a multiple of 2"):
        module(clips_source, "data.batch_size=7").check()


def test_evaluation_is_all_frames_in_order(clips_source: Path):
    batches = list(module(clips_source, "data.batch_size=6").val_dataloader())
    assert [image for batch in batches for image in batch.image_ids] == list(range(32))
    assert [len(batch.image_ids) for batch in batches] == [6, 6, 6, 6, 6, 2]


def test_any_missing_frame_is_found_before_training(clips_root: Path):
    for split in ("train", "val"):
        victim = sorted((clips_root / split / "JPEGImages").rglob("*.jpg"))[5]
        content = victim.read_bytes()
        victim.unlink()
        edit(clips_root, "train", lambda c: c)
        with pytest.raises(UserError, match=rf"1 of the \d+ images of .*{split}\.json do not exist, first image 5 \("):
            module(clips_root).check()
        victim.write_bytes(content)
    victim.write_bytes(b"text")
    with pytest.raises(UserError, match=r"image 5 .*cannot be read"):
        module(clips_root).check()


def test_nothing_to_learn_and_nothing_to_find(clips_root: Path):
    edit(clips_root, "val", lambda c: c.update(annotations=[]))
    with pytest.raises(UserError, match="has no objects to find"):
        module(clips_root).check()
    edit(clips_root, "train", lambda c: [track.update(iscrowd=1) for track in c["annotations"]])
    with pytest.raises(UserError, match="has no object to learn"):
        module(clips_root).check()


def test_the_embedded_clips_count_in_a_run_s_identity():
    before = identity(config())
    assert before["data"]["generator"] == "shapes_video"
    assert run_id(identity(config("data.root=elsewhere"))) == run_id(before)
    for other in ("data.video.shapes.train=7", "data.video.reference_range=3", "data.video.shapes.side=64"):
        assert run_id(identity(config(other))) != run_id(before)
    assert not any("video" in key for key in identity(compose("config", TrainConfig, [])))
