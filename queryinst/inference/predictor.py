"""A trained network ready for use: pictures in, results out."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from queryinst.checkpoints.load import Checkpoint
from queryinst.config import PostprocessConfig
from queryinst.data.collate import pad
from queryinst.data.dataset import planes
from queryinst.data.transforms import EvaluationGeometry
from queryinst.errors import UserError
from queryinst.inference.overlap import batched, going, overlapped
from queryinst.inference.pictures import Picture, Source, to_picture
from queryinst.inference.result import Classes, Result
from queryinst.inference.select import labels_of, suppress
from queryinst.models.deploy import PRECISIONS, deploy
from queryinst.models.packed import pack
from queryinst.models.postprocess import Wanted, detect


def device_of(name: str) -> str:
    """A torch device that exists here, of its name, "auto" or Lightning's "gpu". Raises UserError."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    here = found.type if found else "cpu"
    if name == "auto":
        return here
    kind, _, number = name.replace("gpu", "cuda").partition(":")
    count = torch.accelerator.device_count() if found else 0
    if kind not in ("cpu", here) or (number and not (number.isdecimal() and int(number) < count)):
        raise UserError(f"there is no device '{name}': this machine, as torch sees it, has {here}; give auto or cpu")
    return f"{kind}:{number}" if number else kind


class Options(TypedDict, total=False):
    """What a prediction may be told."""

    score: float  # at least; 0.3 by default
    classes: Sequence[str | int] | None  # names or category ids; all by default
    one_class: bool  # only the best class of each query, instead of each class above the score
    nms: float | None  # of two masks of a class with an IoU above this, keep the better; by default keep both
    max_detections: int | None  # of an image; by default as the model was trained
    stages: int | None  # how many of the model's to run; all by default
    proposals: int | None  # how many go on after the first stage; all by default


@dataclass(frozen=True)
class _Question:
    """Options, checked."""

    wanted: Wanted
    config: PostprocessConfig
    nms: float | None
    limit: int | None
    stages: int | None
    proposals: int | None


class _Prepared(NamedTuple):
    number: int
    path: Path | None
    pixels: Picture | None
    size: tuple[int, int]
    resized: Tensor  # (3, h, w) uint8


class Predictor:
    """A network with its classes, its size of input, and its device.

    Attributes:
        model: the network, as `queryinst.models.deploy` prepares it for use.
        names, category_ids: of the K classes.
        num_stages, num_proposals: the most that `stages` and `proposals` may be.
        tracker: how the run linked instances over the frames of a video.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision takes one of {', '.join(PRECISIONS)}; got '{precision}'")
        self.device = torch.device(device_of(device))
        self.model = pack(deploy(checkpoint.build().to(self.device), precision))
        self.classes = Classes(tuple(checkpoint.category_ids), tuple(checkpoint.category_names))
        self.names, self.category_ids = list(self.classes.names), list(self.classes.ids)
        self.num_stages = checkpoint.config.model.num_stages
        self.num_proposals = checkpoint.config.model.num_proposals
        self.tracker = checkpoint.config.tracker
        self._postprocess = checkpoint.config.model.postprocess
        self._geometry = EvaluationGeometry(checkpoint.config.augmentation)
        self._rng = np.random.default_rng(0)  # which evaluation never asks

    @overload  # a str is a sequence of str to the type checker, but one image to us
    def predict(  # type: ignore[overload-overlap]
        self, images: Source, *, batch_size: int = ..., **options: Unpack[Options]
    ) -> Result: ...

    @overload
    def predict(
        self, images: Sequence[Source], *, batch_size: int = ..., **options: Unpack[Options]
    ) -> list[Result]: ...

    def predict(
        self, images: Source | Sequence[Source], *, batch_size: int = 4, **options: Unpack[Options]
    ) -> Result | list[Result]:
        """What is in an image, or in each image of a list.

        Args:
            images: a path, an array (H, W, 3) RGB or (H, W) of uint8, a Pillow image, a tensor (3, H, W) of uint8, or a
                list of these.
            batch_size: images at a time.
            options: `score=0.3`, `classes`, `one_class`, `nms`, `max_detections`, `stages`, `proposals`; see `Options`.

        Returns:
            a result for an image, and a list for a list. Those of paths read the file again when they are drawn.

        Raises:
            UserError: an image cannot be read, or an option does not fit the model.
        """
        several = isinstance(images, list | tuple)
        sources: Sequence[Source] = images if several else [images]  # type: ignore[assignment, list-item]
        found = list(self.stream(sources, batch_size=batch_size, hold=False, **options))
        return found if several else found[0]

    def stream(
        self,
        images: Iterable[Source],
        *,
        batch_size: int = 4,
        workers: int = 2,
        hold: bool = True,
        fault: Callable[[UserError], None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Result]:
        """The results of images one after another, while the next are decoded; for folders and videos without end.

        Args:
            images: as for `predict`; they are taken as they are needed, in a thread of its own. A generator is closed
                at the end, also where it is early because these results are closed.
            batch_size: images at a time.
            workers: threads that decode.
            hold: keep the pixels of image files in their results; else a file is read again when it is drawn.
            fault: is told of each image that cannot be read, which is then left out; without it that is raised.
            options: as for `predict`.
        """
        question = self._question(**options)
        if batch_size < 1 or workers < 1:
            raise UserError(f"batch_size and workers must be at least 1; got {batch_size} and {workers}")
        prepare = partial(self._prepare, hold=hold)
        return self._stream(overlapped(prepare, _numbered(images), workers, batch_size), question, batch_size, fault)

    def _stream(
        self,
        prepared: Generator[_Prepared | UserError, None, None],
        question: _Question,
        batch_size: int,
        fault: Callable[[UserError], None] | None,
    ) -> Iterator[Result]:
        with closing(prepared):
            for batch in batched(_readable(prepared, fault), batch_size):
                yield from self._look(batch, question)

    def _prepare(self, numbered: tuple[int, Source], hold: bool) -> _Prepared | UserError:
        number, source = numbered
        try:
            pixels = to_picture(source)
        except UserError as error:
            return error
        height, width = pixels.shape[:2]
        resized = torch.from_numpy(planes(self._geometry(height, width, self._rng).image(pixels)))
        path = Path(source) if isinstance(source, str | Path) else None
        return _Prepared(number, path, pixels if hold or path is None else None, (height, width), resized)

    @torch.inference_mode()
    def _look(self, batch: list[_Prepared], question: _Question) -> list[Result]:
        images, sizes = (part.to(self.device) for part in pad([one.resized for one in batch]))
        originals = torch.tensor([one.size for one in batch], device=self.device)
        pyramid = self.model.pyramid(self.model.normalise(images, sizes))
        output = self.model.query(pyramid, sizes, question.stages, question.proposals)
        found = detect(self.model, output, sizes, originals, question.config, wanted=question.wanted)
        results = []
        for one, detections in zip(batch, found, strict=True):
            result = Result(detections.cpu(), self.classes, one.path, one.pixels, one.number)
            if question.nms is not None:
                result = suppress(result, question.nms)[: question.limit]
            results.append(result)
        return results

    def _question(
        self,
        score: float = 0.3,
        classes: Sequence[str | int] | None = None,
        one_class: bool = False,
        nms: float | None = None,
        max_detections: int | None = None,
        stages: int | None = None,
        proposals: int | None = None,
    ) -> _Question:
        """Check the options. Raises UserError."""
        for name, value, low, high in (
            ("score", score, 0, 1),
            ("nms", nms, 0, 1),
            ("max_detections", max_detections, 1, None),
            ("stages", stages, 1, self.num_stages),
            ("proposals", proposals, 1, self.num_proposals),
        ):
            if value is not None and not (low <= value and (high is None or value <= high)):
                most = f" and at most {high}" if high else ""
                raise UserError(f"{name} must be at least {low}{most}, of this model; got {value}")
        limit = max_detections or self._postprocess.max_detections
        # Where masks are thinned out, more must be looked at than are kept.
        looked_at = max(limit or 0, self.num_proposals) if nms is not None else limit
        return _Question(
            Wanted(score, labels_of(classes, self.classes) if classes else None, one_class),
            replace(self._postprocess, max_detections=looked_at),
            nms,
            limit,
            stages,
            proposals,
        )


def _numbered(images: Iterable[Source]) -> Iterator[tuple[int, Source]]:
    """`enumerate`, but closing it closes the images."""
    with going(images) as source:
        yield from enumerate(source)


def _readable(
    prepared: Iterable[_Prepared | UserError], fault: Callable[[UserError], None] | None
) -> Iterator[_Prepared]:
    for one in prepared:
        if isinstance(one, _Prepared):
            yield one
        elif fault is None:
            raise one
        else:
            fault(one)
