"""Is a difference more than noise? Two kinds of it: which images are in the validation set, and which seed trained.

Images: a paired bootstrap (`evaluation/bootstrap.py`), the APs of a group averaged over its seeds before the difference
is taken. It holds the trained networks fixed, so it knows nothing of seeds.

Seeds: the standard error of a difference of means, from the variance within groups, pooled over all groups that have
several seeds (as an analysis of variance does), with Student's t for so few. A group with one seed is judged by the
spread of the others. It holds the images fixed.

Together: the half widths add as squares, for the two are independent; where one is not known, that is said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from queryinst.errors import UserError
from queryinst.evaluation import bootstrap
from queryinst.studies.compare.groups import KINDS, Group
from queryinst.studies.compare.runs import MATCHES, Run

Floats = NDArray[np.float64]


class Verdict(Enum):
    """What can be said of a difference to the baseline."""

    BETTER = "better"
    WORSE = "worse"
    WITHIN = "within the noise"
    UNKNOWN = "cannot be told"


@dataclass(frozen=True)
class Difference:
    """AP of a group minus that of the baseline, and 95 % half widths and intervals; None: not known."""

    group: Group
    baseline: Group
    kind: str  # segm or bbox
    value: float
    images: tuple[float, float] | None  # from the bootstrap
    seeds: float | None  # half width
    count: int  # of images; 0 without a bootstrap
    spare: int  # seeds beyond the first of each group (degrees of freedom): with 1 or 2, `seeds` is very wide

    @property
    def interval(self) -> tuple[float, float] | None:
        """All that is known together; None where nothing is."""
        if self.images is None and self.seeds is None:
            return None
        low, high = self.images or (self.value, self.value)
        seeds = self.seeds or 0.0
        return (
            self.value - math.hypot(max(self.value - low, 0.0), seeds),
            self.value + math.hypot(max(high - self.value, 0.0), seeds),
        )

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where seeds are known too; within the noise where what is known is enough for that."""
        interval = self.interval
        if interval is None or math.isnan(self.value):
            return Verdict.UNKNOWN
        if interval[0] <= 0 <= interval[1]:
            return Verdict.WITHIN
        if self.seeds is None:
            return Verdict.UNKNOWN
        return Verdict.BETTER if self.value > 0 else Verdict.WORSE

    @property
    def sentence(self) -> str:
        """For people: the difference, the verdict, and what it rests on."""
        what = KINDS[self.kind]
        if math.isnan(self.value):
            return f"{what}: cannot be told, for one of the two has none."
        if self.interval is None:
            return f"{what} {self.value:+.3f}: one seed, cannot be told. Train more seeds, or keep {MATCHES} of both."
        low, high = self.interval
        found = f"{what} {self.value:+.3f} (95 % interval {low:+.3f} to {high:+.3f}; {self._grounds()})"
        if self.verdict is Verdict.WITHIN:
            few = ", as far as so few seeds can tell" if self.spare in (1, 2) else ""
            return f"{found}: within the noise{few}."
        if self.verdict is Verdict.UNKNOWN:
            return (
                f"{found}: more than other images would change, but with one seed it cannot be told what another gives."
            )
        return f"{found}: {self.verdict.value}, beyond the noise."

    def _grounds(self) -> str:
        images = f"{self.count} images" if self.images else "noise of images not in it"
        return f"{images}, {'noise of seeds not in it' if self.seeds is None else f'seeds ±{self.seeds:.3f}'}"


class Noise:
    """Judges differences between groups.

    Args:
        groups: all that are compared; the spread of seeds is pooled over them.
        resamples: rows of the bootstrap.
        seed: of the bootstrap.
    """

    def __init__(self, groups: Sequence[Group], resamples: int = 1000, seed: int = 0) -> None:
        self.groups = groups
        self.resamples, self.seed = resamples, seed
        self._file = cache(lambda folder: bootstrap.read(folder / MATCHES))
        self._precisions = cache(self._resampled)

    def check(self, run: Run, tolerance: float = 1e-4) -> None:
        """Compare the AP that a run's matches give with that of its result.json.

        Raises:
            UserError: they are not of one evaluation.
        """
        file = self._file(run.folder)
        ones = np.ones((1, len(file.image_ids)), np.int64)
        for kind in file.kinds:
            found = float(bootstrap.average(bootstrap.precisions(file.kinds[kind], ones))[0])
            said = run.metric(f"{kind}_AP")
            if abs(found - said) > tolerance:
                raise UserError(
                    f"{run.folder / MATCHES} gives {kind}_AP {found:.4f}, but result.json {said:.4f}: they are not of "
                    "one evaluation; delete the older one"
                )

    def difference(self, group: Group, baseline: Group, kind: str) -> Difference:
        """Of the AP of one kind, `segm` or `bbox`."""
        metric = f"{kind}_AP"
        value = group.mean(metric) - baseline.mean(metric)
        images, count = None, 0
        if self.same_images(group, baseline) and not math.isnan(value):
            images = bootstrap.interval(self._of_group(group, kind) - self._of_group(baseline, kind))
            count = len(self._file(group.runs[0].folder).image_ids)
        seeds, spare = self._seeds(group, baseline, metric)
        return Difference(group, baseline, kind, value, images, seeds, count, spare)

    def by_class(self, group: Group, baseline: Group) -> tuple[Floats, Floats] | None:
        """(K,) lower and upper ends of 95 % intervals over images of the mask AP differences; None without matches."""
        if not self.same_images(group, baseline):
            return None
        one, other = (
            np.mean([self._precisions(run.folder, "segm").mean(2) for run in of.runs], 0) for of in (group, baseline)
        )
        there = ~np.isnan(one - other).all(0)
        ends = np.full((2, one.shape[1]), np.nan)
        ends[:, there] = np.nanquantile((one - other)[:, there], [0.025, 0.975], axis=0)
        return ends[0], ends[1]

    def same_images(self, *groups: Group) -> bool:
        """Whether all runs have matches, of the same images and classes."""
        runs = [run for one in groups for run in one.runs]
        if not all((run.folder / MATCHES).is_file() and run.classes == runs[0].classes for run in runs):
            return False
        first, *others = (self._file(run.folder) for run in runs)
        return all(
            np.array_equal(first.image_ids, other.image_ids) and np.array_equal(first.category_ids, other.category_ids)
            for other in others
        )

    def _of_group(self, group: Group, kind: str) -> Floats:
        """(B,) AP in each resample, averaged over the seeds."""
        return np.mean([bootstrap.average(self._precisions(run.folder, kind)) for run in group.runs], 0)

    def _resampled(self, folder: Path, kind: str) -> Floats:
        """(B, K, T). The rows depend on the number of images and the seed alone: they are the same for all runs."""
        file = self._file(folder)
        return bootstrap.precisions(
            file.kinds[kind], bootstrap.resamples(len(file.image_ids), self.resamples, self.seed)
        )

    def _seeds(self, group: Group, baseline: Group, metric: str) -> tuple[float | None, int]:
        """95 % half width of the difference of means, and degrees of freedom."""
        spreads = [(one.spread(metric), len(one.runs) - 1) for one in self.groups]
        known = [(spread, free) for spread, free in spreads if not math.isnan(spread)]
        free = sum(freedom for _, freedom in known)
        if not free:
            return None, 0
        variance = sum(spread**2 * freedom for spread, freedom in known) / free
        error = math.sqrt(variance * (1 / len(group.runs) + 1 / len(baseline.runs)))
        return float(stdtrit(free, 0.975)) * error, free
