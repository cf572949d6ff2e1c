"""Which of the processes of a run this is: exactly one of them is the first."""

import pytest

from queryinst.studies.processes import exit_code, is_first

NAMES = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_a_process_alone_is_the_first():
    assert is_first()
    assert exit_code(2) == 2


@pytest.mark.parametrize("name", NAMES)
def test_of_several_the_first_has_the_number_0_everywhere(name: str, monkeypatch: pytest.MonkeyPatch):
    for other in NAMES:
        monkeypatch.setenv(other, "0")
    assert is_first()
    assert exit_code(130) == 130
    monkeypatch.setenv(name, "1")
    assert not is_first()
    assert exit_code(130) == 0
