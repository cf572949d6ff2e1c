import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torchvision

from queryinst.errors import UserError
from queryinst.studies import beginning
from queryinst.studies.beginning import PUBLISHED, Start, find, missing
from queryinst.zoo import OFFLINE, ZOO

NAME, SMALL = PUBLISHED[100], "torchvision:mobilenet_v2"


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """What was found is remembered in a process."""
    forget()
    yield
    forget()


def forget() -> None:
    find.cache_clear()
    missing.cache_clear()


@pytest.fixture
def torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that torchvision's ImageNet weights are downloaded from, with the beginning of its SHA-256 in its name."""
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    file = tmp_path / f"mobilenet_v2-{digest}.pth"
    file.write_bytes(b"weights")
    known = {"IMAGENET1K_V1": SimpleNamespace(url=file.as_uri())}
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: known)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(OFFLINE)
    return file


def can_be_had(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    asked = []

    def local(name: str) -> Path:
        asked.append(name)
        if name not in names:
            raise UserError(f"{name} is on the moon")
        return Path("here")

    monkeypatch.setattr(beginning, "local", local)
    return asked


def test_published_weights_come_first_and_are_asked_for_once(monkeypatch: pytest.MonkeyPatch, torchvisions: Path):
    asked = can_be_had(monkeypatch, NAME)
    for _ in range(3):
        assert find(NAME, "resnet50") == Start("published", NAME, None, "published weights can be had")
        assert missing(NAME) == ""
    assert asked == [NAME]
    assert set(PUBLISHED.values()) <= ZOO.keys()


def test_then_an_imagenet_backbone(monkeypatch: pytest.MonkeyPatch, torchvisions: Path, tmp_path: Path):
    can_be_had(monkeypatch)
    assert find(NAME, "resnet50") == Start("ImageNet", None, "imagenet", f"{NAME} is on the moon")
    assert find(None, SMALL) == Start("ImageNet", None, "imagenet", "none are published of this network")
    fetched = tmp_path / "home" / "hub" / "checkpoints" / torchvisions.name
    assert fetched.read_bytes() == b"weights"
    torchvisions.unlink()
    forget()
    assert find(None, SMALL).kind == "ImageNet", "it is here"
    assert find(None, "timm:convnextv2_atto") == Start("ImageNet", None, "timm", "none are published of this network")


def test_then_nothing(monkeypatch: pytest.MonkeyPatch, torchvisions: Path, tmp_path: Path):
    can_be_had(monkeypatch)
    assert find(None, "tiny") == Start("nothing", None, None, "nobody publishes weights of tiny")
    assert find(None, "my_net:Net").kind == "nothing"
    fetched = tmp_path / "home" / "hub" / "checkpoints" / torchvisions.name
    monkeypatch.setenv(OFFLINE, "1")
    found = find(NAME, "resnet50")
    assert found[:3] == ("nothing", None, None)
    assert found.why == (
        f"{NAME} is on the moon; the ImageNet weights of resnet50 cannot be had (QUERYINST_OFFLINE is set): "
        f"save {torchvisions.as_uri()} as {fetched}"
    )
    assert find(None, "timm:convnextv2_atto").kind == "nothing"
    monkeypatch.delenv(OFFLINE)
    forget()
    torchvisions.write_bytes(b"a page that wants a login")
    assert "cannot be had (invalid hash value" in find(None, SMALL).why
    assert not fetched.exists()


def test_a_network_without_imagenet_weights(monkeypatch: pytest.MonkeyPatch):
    assert find(None, "swin_l").why == "torchvision has no ImageNet weights for swin_l"
