"""Settings of what is shown and logged of a run; they are part of `queryinst.config.TrainConfig`."""

from dataclasses import dataclass, field
from typing import Any

from queryinst.part_config import slots
from queryinst.settings import setting


@dataclass
class CallbacksConfig:
    pictures: int = setting(
        8,
        "validation images, or clips (at most four), shown with their predictions at every evaluation",
        at_least=0,
        identity=False,
    )
    picture_score: float = setting(
        0.3, "lowest score of a prediction that is drawn", at_least=0, at_most=1, identity=False
    )
    extra: dict[str, Any] = slots("callback", "more callbacks of Lightning: +callbacks.extra.NAME.name=module:Class")


@dataclass
class WandbConfig:
    enabled: bool = setting(False, "log to Weights & Biases", identity=False)
    mode: str = setting(
        "auto",
        "`online`, `offline`, or `auto`: online where an account is set up",
        choices=("auto", "online", "offline"),
        identity=False,
    )
    project: str = setting("queryinst", "project of the run", identity=False)
    entity: str | None = setting(None, "user or team; empty: the account's own", identity=False)
    tags: list[str] = setting([], "tags of the run", identity=False)


@dataclass
class LoggerConfig:
    csv: bool = setting(False, "write metrics.csv", identity=False)
    tensorboard: bool = setting(False, "write TensorBoard events", identity=False)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    extra: dict[str, Any] = slots(
        "logger", "more loggers of Lightning: +logger.extra.NAME.name=module:Class", identity=False
    )
