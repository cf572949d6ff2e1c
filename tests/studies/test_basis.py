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
def test_somebodys_own_data_is_fine_tuned_on(
    can_be_had: bool, gpu: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(basis, "can_be_had", lambda name: can_be_had)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpu)
    small = not (gpu or can_be_had)
    recipe = "+experiment=finetune_small" if small else "+experiment=finetune"
    assert standing(["data=coco", "seed=1"]) == ["data=coco", "seed=1", recipe]
    assert ("+experiment=finetune takes the published network" in capsys.readouterr().err) == small
    if not can_be_had:
        assert standing(["data=coco", "trainer.accelerator=cpu"])[-1] == "+experiment=finetune_small"
