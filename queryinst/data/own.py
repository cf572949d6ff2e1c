"""The user's own code in data: a reader of annotations, and steps of augmentation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from queryinst.config import DataConfig
from queryinst.data.coco import CocoFile
from queryinst.data.repair import CROWD
from queryinst.data.transforms import Instances
from queryinst.errors import UserError
from queryinst.part_config import Used, several
from queryinst.parts import AugmentationStep
from queryinst.slots import make, said


def reader_of(data: DataConfig) -> Used:
    """Who reads the annotations of a data set."""
    return Used("data.reader", "reader", data.reader.name, data.reader.args)


class ReadFile(CocoFile):
    """Annotations in another format, as a `DataReader` makes COCO of them. They leave no index.

    Args:
        reader: the part.
        path: the file or folder that it is given.
        folder, hint, crowd: as of `CocoFile`.

    Raises:
        UserError: there is nothing to read, the reader fails, or what it gives is not COCO.
    """

    def __init__(self, reader: Used, path: Path, folder: Path, hint: str = "", crowd: str = CROWD[0]) -> None:
        self.reader = reader
        super().__init__(path, folder, hint, crowd)

    def _digest(self) -> None:
        return None

    def _content(self, hint: str) -> Any:
        return read_with(self.reader, self.path, hint)


def read_with(reader: Used, path: Path, hint: str = "") -> Any:
    """What a reader of the user's own makes of a file or folder, as JSON would have it. Raises UserError."""
    if not path.exists():
        raise UserError(f"{path} does not exist; expected what {reader.name} reads there{hint}")
    read = make(reader)
    try:
        return json.loads(json.dumps(read(path), default=_plain))  # NumPy's numbers, tuples: what JSON has
    except UserError:
        raise
    except Exception as error:  # whatever the user's code does
        raise UserError(f"{reader.name} (data.reader) cannot read {path}: {said(error)}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise TypeError(f"{value!r} is nothing that a COCO file can hold")


class StepError(UserError):
    """A step of the user's own failed. A DataLoader raises it anew, with the text of its own traceback in front."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence.rpartition("StepError: ")[2].strip())


class Steps:
    """The augmentation steps that a setting `augmentation.steps` names, one after another. Raises UserError."""

    def __init__(self, nodes: dict[str, Any]) -> None:
        self.steps: dict[str, AugmentationStep] = {}
        for part in several("augmentation.steps", "augmentation", nodes):
            self.steps[part.key] = make(part)

    def __call__(
        self, image: NDArray[np.uint8], instances: Instances, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Instances]:
        for key, step in self.steps.items():
            try:
                image, instances = step(image, instances, rng)
            except Exception as error:  # whatever the user's code does
                raise StepError(f"{key} fails: {said(error)}") from error
            if not _is_image(image) or not isinstance(instances, Instances):
                got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise StepError(
                    f"{key} must give an image (H, W, 3) of uint8 and Instances; got {got} and "
                    f"{type(instances).__name__} (queryinst/parts.py: AugmentationStep)"
                )
        return image, instances


def _is_image(image: Any) -> bool:
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
