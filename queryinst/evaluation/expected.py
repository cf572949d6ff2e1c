"""Is the average precision what somebody has published? Of weights that are the same, the figure is too."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from queryinst.errors import UserError
from queryinst.zoo import VAL2017, in_zoo, published

PUBLISHED = "published"
EPSILON = 1e-9  # 37.5 and 37.7 are 0.2 apart, whatever binary fractions make of it


@dataclass(frozen=True)
class Expected:
    """Average precision that should come out.

    Attributes:
        points: by kind, `bbox` or `segm`, AP in points (hundredths).
        tolerance: points by which it may differ, up or down.
    """

    points: Mapping[str, float]
    tolerance: float

    def judge(self, metrics: Mapping[str, float], prefix: str = "") -> tuple[bool, str]:
        """Whether it is met, and a line that says so.

        Args:
            metrics: AP from 0 to 1, by names such as `segm_AP`.
            prefix: what their names begin with.
        """
        found = {kind: 100 * metrics[f"{prefix}{kind}_AP"] for kind in self.points}
        met = all(
            abs(found[kind] - self.points[kind]) <= self.tolerance + EPSILON for kind in self.points
        )  # NaN is not
        words = {"bbox": "box AP", "segm": "mask AP"}
        said = ", ".join(f"{words[kind]} {found[kind]:.2f} for {self.points[kind]:g}" for kind in self.points)
        return met, f"expected AP is {'met' if met else 'NOT met'} within {self.tolerance:g}: {said}"


def expected(expect: str, tolerance: float, checkpoint: str) -> Expected:
    """What `expect=` means: `published`, MASK or BOX/MASK, in points.

    Raises:
        UserError: it is none of these, or the checkpoint has no published figures.
    """
    if expect == PUBLISHED:
        if not in_zoo(checkpoint):
            raise UserError(
                f"expect=published is for published weights by name, such as checkpoint=mmdet:1x_pro100, not "
                f"{checkpoint}; give figures, such as expect=42.0/37.5 for boxes and masks"
            )
        weights = published(checkpoint)
        return Expected({"bbox": weights.box, "segm": weights.mask}, tolerance)
    if not re.fullmatch(r"\d{1,2}(\.\d+)?(/\d{1,2}(\.\d+)?)?", expect):
        raise UserError(
            f"expect takes 'published', MASK or BOX/MASK, AP in points from 0 to 100, such as 37.5 or 42.0/37.5; got "
            f"'{expect}'"
        )
    figures = [float(figure) for figure in expect.split("/")]
    return Expected(dict(zip(("bbox", "segm")[-len(figures) :], figures, strict=True)), tolerance)


def require_val2017(count: int, where: object) -> None:
    """Raise UserError unless a data set has as many images as that of the published figures."""
    if count != VAL2017:
        raise UserError(
            f"published AP is that of COCO val2017, {VAL2017} images, and {where} has {count}: give "
            "images=COCO/val2017 annotations=COCO/annotations/instances_val2017.json, or expect=BOX/MASK for it"
        )
