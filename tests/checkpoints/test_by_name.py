"""Weights by name: fetched once, converted once, and a file from then on, whoever asks and wherever it is kept."""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Run, shapes_config
from publisher import BY_HAND, NAME, UNCHECKED, Publisher, cut, publishing, slow
from test_convert import published as write_published

from queryinst import zoo
from queryinst.checkpoints import by_name
from queryinst.checkpoints.by_name import checksum_of, local, origin
from queryinst.checkpoints.load import load
from queryinst.checkpoints.published import convert
from queryinst.errors import UserError
from queryinst.studies.identity import identity
from queryinst.zoo import OFFLINE, ZOO, in_zoo


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file in MMDetection's layout: ResNet-18, 4 queries, 2 stages, 3 classes."""
    return write_published(tmp_path_factory.mktemp("published") / "a.pth", 3).read_bytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUERYINST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def publisher(content: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    with publishing(content, monkeypatch) as made:
        yield made


def failed(path: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        local(path)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_a_process(folder: Path, name: str = NAME) -> "subprocess.Popen[str]":
    """Another process that wants the same weights, and prints where they are."""
    script = (
        "from queryinst.zoo import OFFLINE, ZOO, Published\nfrom queryinst.checkpoints.by_name import local\n"
        f"ZOO[{name!r}] = Published(**{dataclasses.asdict(ZOO[name])!r})\nprint(local({name!r}))"
    )
    path = folder / f"ask-{uuid.uuid4()}.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, path], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_fetched_and_converted_once_and_then_used_without_a_network(
    publisher: Publisher, content: bytes, cache: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint = load(NAME)
    file = ZOO[NAME].file
    assert checkpoint.path == cache / "mmdet" / file.replace(".pth", ".safetensors")
    assert names(cache / "mmdet") == sorted([f"{file}.lock", checkpoint.path.name])
    assert (checkpoint.config.backbone.name, checkpoint.config.model.num_proposals) == ("resnet18", 4)
    assert checkpoint.build() is not None
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"fetching {NAME} of \d+\.\d MB", lines[0])
    assert lines[-2:] == [f"converting {NAME}", f"{NAME} is {checkpoint.path} from now on"]
    assert origin(checkpoint.path) == {
        "file": file,
        "sha256": hashlib.sha256(content).hexdigest(),
        "label": "MMDetection",
    }
    publisher.close()
    written = checkpoint.path.stat().st_mtime_ns
    again = load(Path(NAME))
    assert again.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(value, again.weights[name]) for name, value in checkpoint.weights.items())
    assert (again.path.stat().st_mtime_ns, len(publisher.asked)) == (written, 1)
    assert capsys.readouterr().err == ""


def test_what_is_a_name():
    assert all(in_zoo(name) and in_zoo(Path(name)) for name in (*ZOO, "mmdet:no_such", "hustvl:"))
    assert not any(map(in_zoo, ("a.ckpt", "mmdet", "mmdet/a.pth", "./mmdet:tiny", "C:/a.pth", "timm:a", "None")))
    assert local("no/such.ckpt") == Path("no/such.ckpt")


def test_a_name_that_is_none():
    known = f"known are {', '.join(ZOO)}"
    assert failed("mmdet:1x_pro10") == (
        f"no published weights are called 'mmdet:1x_pro10'; did you mean 'mmdet:1x_pro100'? {known}"
    )
    assert failed("paddle:§§§§§§§§§") == f"no published weights are called 'paddle:§§§§§§§§§'; {known}"


def test_every_name_is_that_of_a_recipe_and_stands_in_the_readme():
    """With its address, checksum and figures."""
    readme = (ROOT / "README.md").read_text()
    for name, weights in ZOO.items():
        publisher, _, recipe = name.partition(":")
        assert (publisher in zoo.PUBLISHERS, weights.publisher) == (True, publisher)
        header = (ROOT / "conf" / "experiment" / f"{recipe}.yaml").read_text()
        assert re.search(rf"{weights.box:.1f}( box AP,|\s/) {weights.mask:.1f}", header), name
        assert weights.url in readme
        assert f"`{name}`" in readme
        assert f"{weights.box:.1f} / {weights.mask:.1f}" in readme
        assert weights.url.startswith("https://")
        assert bool(weights.checksum) == (publisher == "mmdet")
        assert weights.page == (publisher == "hustvl")
        assert weights.page or weights.url.endswith(f"/{weights.file}")
    assert ZOO["mmdet:1x_pro100"].checksum == "5a8f1998"


def test_a_file_that_somebody_put_there(publisher: Publisher, content: bytes, cache: Path):
    """By hand, where there is no network or a browser is needed; it stays."""
    source = cache / "hustvl" / "tiny.pth"
    assert failed(BY_HAND) == (
        f"{BY_HAND} is given to people only: open {publisher.url}/page in a browser, save the file as {source}, and "
        "the same command goes on"
    )
    source.write_bytes(b"no weights")
    assert failed(BY_HAND).startswith(f"{source} cannot be read as a checkpoint")
    source.write_bytes(content)
    assert local(BY_HAND) == source.with_suffix(".safetensors")
    assert source.read_bytes() == content
    other = cache / "mmdet" / ZOO[NAME].file
    other.parent.mkdir()
    other.write_bytes(b"other")
    assert re.search(rf"^{other} is not what was published: .*; delete {other}$", failed(NAME))
    assert publisher.asked == []


def test_what_holds_no_weights_is_not_kept(publisher: Publisher, content: bytes, cache: Path):
    url = publisher.url + "/tiny.pdparams"
    publisher.files["/tiny.pdparams"] = pickle.dumps({"x": 1})
    assert failed(UNCHECKED).startswith(
        f"what {url} gave cannot be used and was deleted: {cache}/paddle/tiny.pdparams "
    )
    assert names(cache / "paddle") == ["tiny.pdparams.lock"]
    publisher.files["/tiny.pdparams"] = content
    assert origin(local(UNCHECKED))["label"] == "MMDetection"


def test_a_cache_that_was_damaged_or_holds_something_else(publisher: Publisher, cache: Path):
    made = local(NAME)
    whole = made.read_bytes()
    for damage in (whole[:-1], b"", whole.replace(ZOO[NAME].checksum.encode(), b"00000000")):
        made.write_bytes(damage)
        assert local(NAME) == made
        assert origin(made)["sha256"].startswith(ZOO[NAME].checksum)
    assert len(publisher.asked) == 4
    assert origin(made.with_name("none")) == {}


@pytest.mark.usefixtures("forked")
def test_two_processes_at_once_fetch_once(publisher: Publisher, cache: Path, tmp_path: Path):
    publisher.faults = [slow(0.005)] * 2
    both = [in_a_process(tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    made = cache / "mmdet" / ZOO[NAME].file.replace(".pth", ".safetensors")
    assert [out for out, _ in said] == [f"{made}\n"] * 2, said
    assert len(publisher.asked) == 1
    assert sorted(f"another process fetches {NAME}: waiting" in err for _, err in said) == [False, True]
    assert load(NAME).build() is not None


@pytest.mark.usefixtures("forked")
def test_one_that_was_killed_goes_on(publisher: Publisher, cache: Path, tmp_path: Path):
    publisher.faults = [slow(0.05)]
    process = in_a_process(tmp_path)
    partial = cache / "mmdet" / f"{ZOO[NAME].file}.partial"
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < 1 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    have = partial.stat().st_size
    assert 0 < have < len(publisher.files[f"/{ZOO[NAME].file}"])
    assert load(NAME).build() is not None
    assert publisher.ranges == [None, f"bytes={have}-"]


def test_without_locks_each_works_for_itself(
    publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    publisher.faults = [cut(1 << 20)]
    assert "did not come whole" in failed(NAME)
    folder, file = cache / "mmdet", ZOO[NAME].file
    assert names(folder) == [f"{file}.lock"]
    assert f"two processes that fetch {NAME} would not notice each other" in capsys.readouterr().err
    (folder / f"{file}.partial").write_bytes(b"of another process")
    made = local(NAME)
    assert names(folder) == sorted([f"{file}.lock", f"{file}.partial", made.name])
    assert (folder / f"{file}.partial").read_bytes() == b"of another process"


def test_where_nothing_is_to_be_fetched(publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(OFFLINE, "1")
    assert failed(NAME) == (
        f"{NAME} is not here, and QUERYINST_OFFLINE is set: unset it, or save {ZOO[NAME].url} as "
        f"{cache / 'mmdet' / ZOO[NAME].file}"
    )
    assert not publisher.asked
    monkeypatch.delenv(OFFLINE)
    made = local(NAME)
    monkeypatch.setenv(OFFLINE, "1")
    assert local(NAME) == made


def test_a_cache_that_cannot_be_written(
    publisher: Publisher, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = local(NAME)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    assert local(NAME) == made, "what is there is used all the same"
    monkeypatch.setenv("QUERYINST_CACHE", str(tmp_path / "other"))
    assert failed(NAME) == (
        f"the cache folder {tmp_path}/other/weights/mmdet cannot be written (Permission denied): set QUERYINST_CACHE "
        "to one that can be"
    )


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert by_name.cache_folder() == Path("/home/me/.cache/queryinst")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert by_name.cache_folder() == Path("/big/queryinst")
    monkeypatch.setenv("QUERYINST_CACHE", "~/own")
    assert by_name.cache_folder() == Path("/home/me/own")


def test_convert_takes_names(publisher: Publisher, tmp_path: Path):
    made, destination = local(NAME), tmp_path / "r18.safetensors"
    publisher.close()
    lines = list(convert(Path(NAME), destination))
    assert lines[0] == f"source        {NAME}: MMDetection"
    assert lines[1].startswith("architecture  resnet18, 4 queries, 2 stages, width 16; ")
    assert lines[-1].endswith(f"; sha256 of the source {origin(made)['sha256']}")
    ours, theirs = load(destination), load(made)
    assert (ours.config, ours.category_names) == (theirs.config, theirs.category_names)
    assert all(torch.equal(value, ours.weights[name]) for name, value in theirs.weights.items())
    assert origin(destination) == origin(made)
    annotations = tmp_path / "c.json"
    annotations.write_text(json.dumps({"categories": [{"id": k, "name": f"n{k}"} for k in (3, 5, 9)]}))
    list(convert(Path(NAME), tmp_path / "b.safetensors", annotations, aligned=False))
    other = load(tmp_path / "b.safetensors")
    assert (other.category_ids, other.category_names, other.config.model.aligned) == (
        [3, 5, 9],
        ["n3", "n5", "n9"],
        False,
    )
    with pytest.raises(UserError, match="exists already"):
        list(convert(Path(NAME), destination))


def test_a_run_is_the_same_wherever_the_cache_is(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And whether it is filled; it counts by the published file, and a file of ours as it always did."""
    with_name = shapes_config(weights=NAME)
    before = identity(with_name)
    assert before["weights"] == f"published {ZOO[NAME].checksum}"
    assert publisher.asked == []
    made = local(NAME)
    monkeypatch.setenv("QUERYINST_CACHE", str(tmp_path / "other"))
    assert identity(with_name) == before
    by_file = identity(shapes_config(weights=str(made)))["weights"]
    assert by_file == hashlib.sha256(made.read_bytes()).hexdigest()[:16]
    assert identity(shapes_config(weights=UNCHECKED)) == before, "the same file: its checksum is seen once it is here"
    assert checksum_of(UNCHECKED) == ZOO[NAME].checksum
    assert len(publisher.asked) == 2
    assert identity(shapes_config())["weights"] is None


@pytest.mark.parametrize("verb", ["predict", "evaluate", "demo", "train"])
def test_commands_know_names_before_anything_is_fetched(verb: str, workplace: Path, publisher: Publisher, run: Run):
    key = "weights" if verb == "train" else "checkpoint"
    words = ["source=a.png"] if verb == "predict" else []
    code, text = run(verb, f"{key}=mmdet:1x_pro10", *words)
    assert (code, publisher.asked) == (2, [])
    assert text.startswith("error: no published weights are called 'mmdet:1x_pro10'; did you mean 'mmdet:1x_pro100'?")


def test_a_full_disk_while_it_is_converted(publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """What was fetched stays, so that with room made nothing is fetched again."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        assert "cannot be written: no space left. Make room, and the same command goes on" in failed(NAME)
    assert ZOO[NAME].file in names(cache / "mmdet")
    local(NAME)
    assert len(publisher.asked) == 1


def test_a_full_disk_while_it_is_fetched(publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch):
    place = cache.parent
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        assert f"{place}/weights/mmdet has 8 MB free, and {NAME} takes " in failed(NAME)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40))
        assert "cannot be written: no space left. Make room, and the same command goes on" in failed(NAME)
        subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)
        assert load(NAME).build() is not None
        assert publisher.ranges[2].startswith("bytes=")
    finally:
        subprocess.run(["umount", str(place)], check=True)
