import pytest

from queryinst.studies import basis
from queryinst.studies.basis import standing


@pytest.mark.parametrize(
    "words", [[], ["data=shapes"], ["data=coco", "+experiment=tiny"], ["seed=1", "data.root=coco"]]
)
def test_other_commands_are_what_they_were(words: list[str]):
    assert standing(words) == words


@pytest.mark.parametrize("can_be_had", [True, False])
@pytest.mark.parametrize("gpu", [True, False])
def test_somebodys_own_data_is_fine_tuned_on(can_be_had: bool, gpu: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(basis, "missing", lambda name: "" if can_be_had else "it is 'far' away")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpu)
    *before, experiment, why = standing(["data=coco", "seed=1"])
    assert before == ["data=coco", "seed=1"]
    if gpu or can_be_had:
        assert (experiment, why) == (
            "+experiment=finetune",
            "+chosen.experiment='finetune, on which data=coco stands'",
        )
    else:
        reason = "finetune_small, without a GPU and published weights (it is \\'far\\' away; with more than 66 objects "
        reason += "in an image it would be mmdet:ms_crop_3x_pro300)"
        assert (experiment, why) == ("+experiment=finetune_small", f"+chosen.experiment='{reason}'")
    if not can_be_had:
        assert "+experiment=finetune_small" in standing(["data=coco", "trainer.accelerator=cpu"])
