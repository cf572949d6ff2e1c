"""Which files, which split, which batches: the data of a training run."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from queryinst.config import AugmentationConfig, DataConfig, TrainConfig
from queryinst.data.coco import Categories, CocoFile
from queryinst.data.collate import EpochSampler, FixedSampler, VideoSampler, collate, collate_pairs
from queryinst.data.dataset import CocoDataset
from queryinst.data.embedded import make_embedded
from queryinst.data.images import ImageFile, check_header
from queryinst.data.locate import locate
from queryinst.data.names import existing
from queryinst.data.own import ReadFile, Steps, reader_of
from queryinst.data.transforms import EvaluationGeometry, TrainGeometry
from queryinst.data.youtube_vis import PairDataset, VideoFile
from queryinst.errors import UserError
from queryinst.ops.ranks import of_all_ranks
from queryinst.ops.roi import STRIDES
from queryinst.slots import is_ours
from queryinst.structures import Batch


class CocoDataModule(pl.LightningDataModule):
    """Training and validation set in COCO format.

    Args:
        data: where they are and how to batch them. `batch_size` counts the images of a step over all devices.
        augmentation: what happens to training images.
        seed: of order and augmentation.
        accumulate: loader batches per optimizer step.
    """

    together = 1  # images that a key of the training order stands for

    def __init__(self, data: DataConfig, augmentation: AugmentationConfig, seed: int, accumulate: int = 1) -> None:
        super().__init__()
        self.data, self.augmentation, self.seed, self.accumulate = data, augmentation, seed, accumulate
        self.problems: dict[str, int] = {}
        self._files: dict[str, CocoFile] = {}
        self._begin = (0, 0)  # epoch, and loader batches done in it, where a resumed run was ended

    def prepare_data(self) -> None:
        make_embedded(self.data)

    def file(self, split: str) -> CocoFile:
        """The annotation file of "train" or "val", read on first use."""
        if split not in self._files:
            self._files[split] = open_split(self.data, split)
        return self._files[split]

    def check(self) -> None:
        """Open both splits. Raises UserError where training or evaluation could not work."""
        train, val = self.file("train"), self.file("val")
        for source, images, allowed in (
            (train, self._read_in_training(), self.data.max_bad_images),
            (val, val.images, 0),
        ):
            missing = [
                image for image in images if not os.path.exists(existing(image.path))
            ]  # also where no file can be called so
            if len(missing) > allowed:
                raise UserError(
                    f"{len(missing)} of the {len(images)} images of {source.path} do not exist, "
                    f"first image {missing[0].id} ({missing[0].path})"
                )
        for image in val.images:  # not after an epoch of training
            check_header(image)
        _ = self.categories
        if not any(train.learnable(image) for image in self.training_images()):
            raise UserError(
                f"{train.path} has no object to learn: every annotation is a crowd region, empty or outside"
            )
        if not any(not annotation.get("iscrowd") for image in val.images for annotation in val.annotations(image)):
            raise UserError(
                f"{val.path} has no objects to find, so average precision is undefined; give other data.val_annotations"
            )

    @property
    def categories(self) -> Categories:
        """The classes, from the training file. Raises UserError where the validation file has others."""
        train, val = self.file("train"), self.file("val")
        if train.categories != val.categories:
            difference = _difference(train.categories, val.categories)
            raise UserError(f"{train.path} and {val.path} differ in their categories: {difference}")
        return train.categories

    def training_images(self) -> Sequence[ImageFile]:
        """Those that training uses: large enough, and with something to learn unless `keep_empty`."""
        source, smallest = self.file("train"), self.data.min_image_side
        images = source.trainable(smallest, self.data.keep_empty)
        if not images:
            raise UserError(
                f"{source.path} has no image to train on: none with objects and sides of {smallest} pixels or more"
            )
        return images

    def _read_in_training(self) -> Sequence[ImageFile]:
        return self.training_images()

    def per_device(self) -> int:
        """Images in one loader batch of one device."""
        parts = (self.trainer.world_size if self.trainer else 1) * self.accumulate
        if self.data.batch_size % parts:
            raise UserError(
                f"data.batch_size={self.data.batch_size} cannot be divided over {parts // self.accumulate} devices and "
                f"{self.accumulate} accumulated batches: give a multiple of {parts}"
            )
        return self.data.batch_size // parts

    def batches_per_epoch(self, limit: int | None = None) -> int:
        """Loader batches of one device in an epoch, at most `limit`."""
        sampler = self._sampler(self.data.batch_size // self.accumulate)
        batches = len(sampler) // sampler.batch
        return min(batches, limit or batches)

    def _sampler(self, batch: int, rank: int = 0, world: int = 1) -> EpochSampler:
        images = self.training_images()
        tall = np.array([image.height > image.width for image in images]) if self.data.group_by_aspect else None
        return EpochSampler(len(images), batch // self.together, self.seed, rank, world, tall)

    def train_dataloader(self) -> DataLoader[Any]:
        sampler = self._sampler(self.per_device(), *self._rank())
        sampler.resume(*self._begin)  # Lightning asks for the first batches before it tells a sampler the epoch
        return self._training_loader(self._training_set(), sampler)

    def _training_set(self) -> CocoDataset:
        images, source = self.training_images(), self.file("train")
        geometry = TrainGeometry(self.augmentation)
        colours, pasting = self.augmentation.photometric, self.augmentation.copy_paste
        steps = Steps(self.augmentation.steps) if self.augmentation.steps else None
        size = self.data.mask_size
        return CocoDataset(images, geometry, source.instances, size, self.seed, colours, True, steps, pasting)

    def _training_loader(self, dataset: CocoDataset, sampler: EpochSampler) -> DataLoader[Any]:
        return loader(dataset, sampler, sampler.batch, self.data.num_workers)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the epoch to go on in, the loader batches done in it, and the images left out."""
        if not self.trainer:
            return {}
        loop = self.trainer.fit_loop
        epoch, batches = loop.epoch_progress.current.ready - 1, loop.epoch_loop.batch_progress
        begin = [epoch + 1, 0] if batches.is_last_batch else [epoch, batches.current.ready]
        return {"begin": begin, "problems": of_all_ranks(self.problems)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._begin, self.problems = tuple(state_dict["begin"]), dict(state_dict["problems"])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """From pinned memory, so that the host need not wait."""
        return batch.to(device, non_blocking=True)

    def padding(self) -> tuple[float, float]:
        """Share of a batch that is padding, with images in any order and grouped by aspect ratio (at the test size)."""
        images, geometry = self.training_images(), EvaluationGeometry(self.augmentation)
        resized = [geometry(image.height, image.width, np.random.default_rng(0)) for image in images]
        sides = np.array([(of.height, of.width) for of in resized])
        shares = []
        for groups in (None, sides[:, 0] > sides[:, 1]):
            sampler = EpochSampler(len(images), self.per_device() // self.together, self.seed, groups=groups)
            batches = sides[[position for _, position in sampler]].reshape(-1, sampler.batch, 2)
            canvas = -(-batches.max(axis=1) // STRIDES[-1]) * STRIDES[-1]
            shares.append(1 - batches.prod(axis=2).sum() / (canvas.prod(axis=1).sum() * sampler.batch))
        return float(shares[0]), float(shares[1])

    def val_dataloader(self) -> DataLoader[Any]:
        source = self.file("val")  # its objects are not for training: callbacks match them
        dataset = CocoDataset(source.images, EvaluationGeometry(self.augmentation), source.instances)
        return loader(dataset, self._val_sampler(), self.per_device(), self.data.num_workers)

    def _val_sampler(self) -> Sampler[tuple[int, int]]:
        return FixedSampler(len(self.file("val").images), *self._rank())

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def count_problems(self, batch: Batch) -> None:
        """Count the training images that could not be read, those that this process met since its last checkpoint and
        all of before. Raises UserError when they are more than allowed.
        """
        for problem in batch.problems:
            if problem in self.problems:
                continue
            self.problems[problem] = 1
            allowed = self.data.max_bad_images
            if len(self.problems) > allowed:
                raise UserError(
                    f"{problem}; data.max_bad_images={len(self.problems)} would replace it by another and go on"
                )
            self.print_problem(problem, allowed)

    def print_problem(self, problem: str, allowed: int) -> None:
        print(f"skipped ({len(self.problems)} of {allowed} allowed): {problem}", flush=True)


class VideoDataModule(CocoDataModule):
    """Training and validation set in YouTube-VIS format.

    A training batch is pairs: images 2i and 2i + 1 are a key frame and a reference frame of the same video. Every frame
    is a key frame once an epoch. In evaluation the frames come in order, on each device those of whole videos.
    """

    together = 2

    def check(self) -> None:
        self.per_device()
        super().check()

    def video_file(self, split: str) -> VideoFile:
        """The annotation file of "train" or "val"; what `file` gives."""
        source = self.file(split)
        assert isinstance(source, VideoFile)
        return source

    def per_device(self) -> int:
        batch = super().per_device()
        if batch % 2:
            size = self.data.batch_size
            raise UserError(
                f"data.batch_size={size} makes a batch of {batch} images on a device; with video they are pairs, a key "
                f"frame and a reference frame: give a multiple of {2 * (size // batch)}"
            )
        return batch

    def _read_in_training(self) -> Sequence[ImageFile]:
        return self.file("train").images  # any frame may become a reference

    def _training_loader(self, dataset: CocoDataset, sampler: EpochSampler) -> DataLoader[Any]:
        assert self.data.video is not None
        pairs = PairDataset(dataset, self.video_file("train"), self.data.video.reference_range)
        return loader(pairs, sampler, sampler.batch, self.data.num_workers, collate_pairs)

    def _val_sampler(self) -> Sampler[tuple[int, int]]:
        return VideoSampler(self.video_file("val").lengths, *self._rank())


def data_module(config: TrainConfig) -> CocoDataModule:
    """The data of a run, images or video."""
    kind = VideoDataModule if config.data.video else CocoDataModule
    return kind(config.data, config.augmentation, config.seed, config.trainer.accumulate)


def open_split(data: DataConfig, split: str, hint: str | None = None) -> CocoFile:
    """The annotation file of "train" or "val", a VideoFile where the data is video, or what the user's own reader makes
    of it; `hint` ends the sentence where something is not there.
    """
    place = locate(data, split, hint)
    reader = reader_of(data)
    if data.video and is_ours(reader):
        return VideoFile(*place)
    return CocoFile(*place, data.crowd) if is_ours(reader) else ReadFile(reader, *place, data.crowd)


def loader(
    dataset: Dataset[Any], sampler: Any, batch: int, workers: int, join: Callable[[list[Any]], Batch] = collate
) -> DataLoader[Any]:
    """A DataLoader that keeps OpenCV to one thread and its processes alive between epochs; at most one a core."""
    cv2.setNumThreads(0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, cores)  # of those this process may use: a job of a cluster has a part of the machine
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=join,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
    )


def _begin_worker(worker: int) -> None:
    cv2.setNumThreads(0)
    # A cluster, and Ctrl+C, tell all processes of a job to leave. The training process must save first, and for that
    # needs nothing to break: this one ends when it is asked to by that one, or finds it gone.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _difference(train: Categories, val: Categories) -> str:
    ours, theirs = (dict(zip(c.ids, c.names, strict=True)).items() for c in (train, val))
    return f"only in training {sorted(ours - theirs) or 'none'}, only in validation {sorted(theirs - ours) or 'none'}"
