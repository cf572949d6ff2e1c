"""Published weights by name: fetched and converted once into the user's cache folder, and from then on a file there.

`CACHE/weights/PUBLISHER/FILE.safetensors` is what `queryinst.convert` makes of FILE, which is deleted. One that
somebody put beside it by hand is used in place of a download, and stays.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from queryinst.cache import cache_folder
from queryinst.checkpoints.download import download, require_checksum
from queryinst.errors import UserError, room
from queryinst.locks import held
from queryinst.zoo import OFFLINE, Published, in_zoo, published


def local(path: str | Path) -> Path:
    """The file of published weights that are given by name, fetched where it is not here yet; any other path as it is.

    Raises:
        UserError: there are no such weights, or they cannot be fetched, converted or written.
    """
    return _converted(published(path)) if in_zoo(path) else Path(path)


def checksum_of(name: str) -> str:
    """What tells published weights from others, whoever converted them and wherever they lie: how the SHA-256 of the
    published file begins, 8 hexadecimal digits. They are fetched where their publisher does not say it.

    Raises:
        UserError: as `local`.
    """
    weights = published(name)
    return weights.checksum or origin(_converted(weights))["sha256"][:8]


def origin(file: Path) -> dict[str, str]:
    """`file`, `sha256` and `label` of what a converted file was made of; nothing where it is missing or damaged."""
    try:
        with safe_open(file, "np") as opened:  # which does not import torch, and notices a file that was cut
            found = json.loads((opened.metadata() or {})["queryinst"])["source"]
            return {str(key): str(value) for key, value in found.items()}
    except (OSError, SafetensorError, LookupError, ValueError, AttributeError, TypeError):
        return {}


def _converted(weights: Published) -> Path:
    source = cache_folder() / "weights" / weights.publisher / weights.file
    made = source.with_suffix(".safetensors")
    if not _is_usable(made, weights):  # also where nothing can be written, as in a cache that several people share
        with _writable(source.parent):
            lock, waiting = source.with_name(f"{source.name}.lock"), f"another process fetches {weights.name}: waiting"
            with held(lock, f"fetch {weights.name}", waiting) as alone:
                if not _is_usable(made, weights):
                    with _workplace(source.parent, alone) as folder:
                        _make(weights, source, folder / made.name)
                        (folder / made.name).replace(made)
                    print(f"{weights.name} is {made} from now on", file=sys.stderr, flush=True)
    return made


def _is_usable(made: Path, weights: Published) -> bool:
    """Whether a converted file is there, whole, and made of what was published."""
    found = origin(made)
    return "sha256" in found and found["sha256"].startswith(weights.checksum)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """What is written inside lies in `folder`, which is made. Raises UserError where it cannot be."""
    try:
        with room(folder):
            folder.mkdir(parents=True, exist_ok=True)
            yield
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be written ({error.strerror or error}): set QUERYINST_CACHE to one that "
            "can be"
        ) from None


@contextlib.contextmanager
def _workplace(folder: Path, alone: bool) -> Iterator[Path]:
    """Where to work: in `folder` itself, where a download goes on, unless another process may do so too."""
    if alone:
        yield folder
    else:
        with tempfile.TemporaryDirectory(dir=folder) as private:
            yield Path(private)


def _make(weights: Published, source: Path, made: Path) -> None:
    """Fetch and convert; `source` is where a file that was fetched by hand lies. Raises UserError."""
    from queryinst.checkpoints.published import convert  # with torch, and it needs this module in turn
    from queryinst.checkpoints.read import NotWrittenError

    if by_hand := source.exists():
        require_checksum(source, weights.checksum, str(source))
    elif weights.page:
        raise UserError(
            f"{weights.name} is given to people only: open {weights.url} in a browser, save the file as {source}, and "
            "the same command goes on"
        )
    elif os.environ.get(OFFLINE):
        raise UserError(
            f"{weights.name} is not here, and {OFFLINE} is set: unset it, or save {weights.url} as {source}"
        )
    else:
        otherwise = f"fetch {weights.url} elsewhere, save it as {source}, and the same command goes on"
        source = made.with_name(source.name)
        download(weights.url, source, weights.name, otherwise, weights.checksum)
    print(f"converting {weights.name}", file=sys.stderr, flush=True)
    made.unlink(missing_ok=True)
    try:
        for _ in convert(source, made):
            pass
    except NotWrittenError:
        raise
    except UserError as error:
        if by_hand:
            raise
        source.unlink(missing_ok=True)
        raise UserError(f"what {weights.url} gave cannot be used and was deleted: {error}") from None
    if not by_hand:
        source.unlink(missing_ok=True)
