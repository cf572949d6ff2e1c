"""`trainer.compile=true`, as a user has it: a run, stopped and resumed, whose checkpoint is as any other."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from conftest import TINY, Run

from queryinst.checkpoints.load import load
from queryinst.models.queryinst import QueryInst

COMPILED = [*TINY, "trainer.compile=true", "trainer.max_train_batches=3", "model.num_stages=1", "callbacks.pictures=0"]
STOP_AT = 2


class StopOnce(pl.Callback):
    """As a cluster ends a run; when it is resumed, that step is past."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == STOP_AT:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile looks at it itself
def test_a_compiled_run_resumes_and_its_checkpoint_is_as_any_other(run: Run, workplace: Path):
    stop = ["+callbacks.extra.stop._target_=test_compilation.StopOnce"]
    code, said = run("train", *COMPILED, *stop)
    assert code == 128 + signal.SIGTERM, said
    code, said = run("train", *COMPILED, *stop)
    assert code == 0, said
    assert f"resumed at step {STOP_AT}" in said
    (path,) = workplace.glob("outputs/*/best.ckpt")
    checkpoint = load(path)
    model = QueryInst(checkpoint.config.model, checkpoint.config.backbone, len(checkpoint.category_ids))
    assert list(model.state_dict()) == list(checkpoint.weights)
    code, said = run("evaluate", f"checkpoint={path}", "output=again.json")
    assert code == 0, said
    expected = json.loads((path.parent / "result.json").read_text())["metrics"]
    assert json.loads((workplace / "again.json").read_text())["metrics"] == expected


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled:UserWarning")
def test_without_a_compiler_training_does_not_begin(run: Run, workplace: Path):
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}):
        code, said = run("train", *COMPILED)
    assert (code, "cannot compile for cpu" in said) == (2, True), said
    assert not list(workplace.glob("outputs/*/*.ckpt"))
