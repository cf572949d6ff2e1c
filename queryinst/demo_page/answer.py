"""What the page answers: pictures and words for an image, a threshold, a number of stages and one of proposals."""

from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path

from queryinst.checkpoints.load import Checkpoint
from queryinst.demo_page.journey import journey
from queryinst.demo_page.look import Look
from queryinst.demo_page.upload import read_upload
from queryinst.errors import UserError
from queryinst.models.queryinst import QueryInst
from queryinst.visualize import draw

IMAGES = 4  # that are remembered; an older one is looked at again when somebody moves a slider
BOXES = 50  # that move, at most
INVITATION = "Drop an image. The network runs once; the sliders then choose among what its stages said."
Answer = tuple[str, str]  # HTML of the pictures, and of what is said of them
Answerer = Callable[[str | None, float, int, int], Answer]


def answerer(model: QueryInst, checkpoint: Checkpoint, megapixels: int) -> Answerer:
    """The function behind the page: uploaded file, score, stages and proposals to an `Answer`.

    It depends on nothing but its arguments; what it remembers of images only saves running the network again.
    """
    names, looks = checkpoint.category_names, dict[str, Look]()

    def answer(path: str | None, score: float, stages: int, proposals: int) -> Answer:
        if path is None:
            return "", f'<div class="said"><p>{INVITATION}</p></div>'
        try:
            if path not in looks:
                pixels = read_upload(Path(path), megapixels)
                if len(looks) >= IMAGES:
                    del looks[next(iter(looks))]
                config = checkpoint.config
                looks[path] = Look(model, config.augmentation, config.model.postprocess, pixels)
        except UserError as error:
            return "", f'<div class="said"><p class="problem" role="alert">{escape(str(error))}</p></div>'
        look = looks[path]
        shown = look.show(score, stages, proposals)
        layer = draw.detected(shown.detections, names)
        classes = Counter(names[label] for label in layer.labels)
        masks = draw.overlay(look.picture, layer.masks, layer.captions)
        pictures = journey(look.picture, masks, shown.trail[:, :BOXES], layer.captions[:BOXES])
        return pictures, _said(look, classes, stages, proposals)

    return answer


def _said(look: Look, classes: Counter[str], stages: int, proposals: int) -> str:
    number = classes.total()
    each = ", ".join(f"{count} {name}" for name, count in classes.most_common())
    going_on = f", {proposals} of {look.proposals} proposals go on after the first" if stages > 1 else ""
    return (
        f'<div class="said"><p class="count">{number} instance{"" if number == 1 else "s"}</p><p>{escape(each)}</p>'
        f"<p>{stages} of {look.stages} stages{going_on}. The network took {look.seconds * 1000:.0f} ms, "
        "once for this image.</p></div>"
    )
