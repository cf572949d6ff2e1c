"""A prediction as files: overlays or a film of them, cut-outs, and one JSON file of everything found."""

import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from queryinst.errors import UserError
from queryinst.inference.film import Film
from queryinst.inference.pictures import Picture
from queryinst.inference.result import Result, save
from queryinst.inference.sources import Files, Video
from queryinst.inference.tracking import Seen, Story, seen_of

RESULTS = "predictions.json"
TRACKS = "tracks.json"
CUTOUTS = "cutouts"


class Drawn(NamedTuple):
    """A result of which everything is made that takes time."""

    number: int
    entries: list[dict[str, Any]]
    picture: Picture | None  # for the film
    seen: list[Seen]  # of a tracked video


class Record:
    """The folder that a prediction is written into, picture by picture; whole also where it ends early.

    `draw` makes what belongs to a result, in any thread; `add` puts it into its place, in order.

    Args:
        folder: is made.
        source: what is looked at.
        score: lowest of an instance that is drawn and written; of a tracked video, `tracks.json` has all others too.
        overlays: draw what is found, as `NAME.png` beside the JSON file, or as a film of a video.
        cutouts: write each instance alone, as `cutouts/NAME-NNN-CLASS.png`.
        story: of a video that is tracked, what becomes `tracks.json`.

    Attributes:
        instances, pictures: how many were written.

    Raises:
        UserError: something cannot be written.
    """

    def __init__(
        self, folder: Path, source: Files | Video, overlays: bool, cutouts: bool, score: float, story: Story | None
    ) -> None:
        self.folder, self.source, self.overlays, self.cutouts = folder, source, overlays, cutouts
        self.score, self.story = score, story
        self.instances = self.pictures = 0
        self._film: Film | None = None
        if isinstance(source, Video) and overlays:
            self._film = Film(folder / f"{Path(source.title).stem}.overlay.mp4", source.rate)
        try:
            (folder / CUTOUTS if cutouts else folder).mkdir(parents=True, exist_ok=True)
            self._file = (folder / RESULTS).open("w")
        except OSError as error:
            raise UserError(f"output={folder} cannot be written ({error.strerror}); give another folder") from None
        self._file.write("[")

    def draw(self, result: Result) -> Drawn:
        """Make the entries of a result, and write the files that are its own."""
        about, name = self.source.describe(result.number), self.source.name(result.number)
        seen = seen_of(result) if self.story is not None else []
        result = result[result.scores >= self.score]
        entries = [{**about, **entry} for entry in result.to_coco(about["image_id"])]
        for entry, track in zip(entries, [] if result.tracks is None else result.tracks.tolist(), strict=False):
            entry["track_id"] = track
        picture = result.draw() if self.overlays else None
        if picture is not None and self._film is None:
            _save(picture, self.folder / f"{name}.png")
        if self.cutouts:
            for position, (cutout, label) in enumerate(zip(result.cutouts(), result.names, strict=True), 1):
                if cutout.size:
                    word = re.sub(r"[^\w-]+", "_", label)
                    _save(cutout, self.folder / CUTOUTS / f"{name}-{position:03d}-{word}.png")
        return Drawn(result.number, entries, picture if self._film else None, seen)

    def add(self, drawn: Drawn) -> None:
        """Write the entries, and the next picture of the film."""
        for entry in drawn.entries:
            self._file.write(f"{',' if self.instances else ''}\n{json.dumps(entry)}")
            self.instances += 1
        if self._film and drawn.picture is not None and isinstance(self.source, Video):
            self._film.add(drawn.picture, self.source.seconds(drawn.number))
        if self.story:
            self.story.add(drawn.number, drawn.seen)
        self.pictures += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.write("]\n")
        self._file.close()
        if self._film:
            self._film.close()
        if self.story:
            (self.folder / TRACKS).write_text(json.dumps(self.story.entries()))


def _save(picture: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # a pattern may find files in several folders
    save(picture, path)
