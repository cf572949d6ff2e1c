"""What a run will cost, before it is started: parameters, floating point operations, and hours as runs so far took."""

import dataclasses
import functools
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queryinst.config import BackboneConfig, DataConfig, ModelConfig, TrainConfig
from queryinst.data.locate import locate
from queryinst.errors import UserError
from queryinst.settings import restore
from queryinst.studies.identity import identity
from queryinst.studies.job import LAST, RESULT

CLASSES = 80  # for counting: how many there are says the annotation file, which may be elsewhere or take long to read


@dataclass(frozen=True)
class Plan:
    """What is known of a run that is not started."""

    state: str  # finished, begun, new
    parameters: int  # with as many classes as COCO has, whatever the data
    flops: int  # of one image, as in result.json
    minutes: float | None  # on this machine, as long as the finished runs on the same data took; None without such runs
    missing: str = ""  # what of the data is not here, and what to set; empty where all is, or will be made


def plan(config: TrainConfig, folder: Path) -> Plan:
    """Look a run up, count its network, and estimate its time.

    The estimate is proportional to images seen and to floating point operations; the factor is the median of the
    finished runs below `config.output` that were trained on the same data.
    """
    state = "finished" if (folder / RESULT).exists() else "begun" if (folder / LAST).exists() else "new"
    side = -(-config.augmentation.test_short_side // 32) * 32
    parameters, flops = _counted(*(json.dumps(dataclasses.asdict(c)) for c in (config.model, config.backbone)), side)
    known = list(_finished(config))
    missing = missing_data(config.data)
    if not known:
        return Plan(state, parameters, flops, None, missing)
    rate = statistics.median(run["minutes"] / (_images(run) * run["flops"]) for run in known)
    an_epoch = statistics.median(_images(run) / run["config"]["schedule"]["epochs"] for run in known)
    return Plan(state, parameters, flops, rate * an_epoch * config.schedule.epochs * flops, missing)


def missing_data(data: DataConfig) -> str:
    """What of the data is not here, as a sentence; empty where all is, or will be made."""
    if data.shapes or (data.video and data.video.shapes):
        return ""
    try:
        places = [locate(data, split) for split in ("train", "val")]
    except UserError as error:
        return str(error)
    wanted = [path for place in places for path in (place.annotations, place.images)]
    gone = [str(path) for path in wanted if not path.exists()]
    return f"{' and '.join(dict.fromkeys(gone))} not there{places[0].hint}" if gone else ""


@functools.cache
def _counted(model: str, backbone: str, side: int) -> tuple[int, int]:
    """Parameters and operations of a network; those of a large one take ten seconds to count."""
    from queryinst.models.cost import flops, parameters
    from queryinst.models.queryinst import QueryInst

    network = QueryInst(restore(ModelConfig, json.loads(model)), restore(BackboneConfig, json.loads(backbone)), CLASSES)
    return parameters(network), flops(network, side, side)


def _images(run: dict[str, Any]) -> int:
    """Training images that a finished run has seen."""
    return int(run["steps"]) * int(run["config"]["data"]["batch_size"])


def _finished(config: TrainConfig) -> Iterator[dict[str, Any]]:
    """The results of the runs on the same training data, with as many batches an epoch."""
    values = identity(config)
    for path in sorted(Path(config.output).glob(f"*/{RESULT}")):
        try:
            run = json.loads(path.read_text())
            same = all(
                run["identity"].get(key) == values.get(key)
                for key in ("data", "data.train", "trainer.max_train_batches")
            )
            if same and _images(run) and run["flops"] and run["minutes"]:
                yield run
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or of another version: no help here
            continue
