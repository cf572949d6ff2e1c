"""Which code trained a run, and what is said where it is not the code of today."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import shapes_config
from test_job_folder import TRAINED

import queryinst
from queryinst.lightning import training
from queryinst.studies import job, results, revision


class Package:
    """A package in a folder of its own, in place of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("a = 1\n")

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x"]
        done = subprocess.run(["git", *who, *words], cwd=self.folder.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "--short=12", "HEAD")

    def now(self) -> str:
        revision.revision.cache_clear()
        return revision.revision()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    made = Package(tmp_path / "checkout" / "queryinst")
    monkeypatch.setattr(revision, "PACKAGE", made.folder)
    yield made
    revision.revision.cache_clear()


def test_without_a_repository_it_is_the_version_and_the_sources(package: Package):
    before = package.now()
    assert re.fullmatch(re.escape(queryinst.__version__) + r"\+[0-9a-f]{8}", before)
    (package.folder / "notes.txt").touch()
    assert package.now() == before
    (package.folder / "__init__.py").write_text("a = 2\n")
    assert package.now() != before
    (package.folder / "__init__.py").write_text("a = 1\n")
    (package.folder / "__init__.py").rename(package.folder / "other.py")
    assert package.now() != before


def test_it_is_the_commit_of_the_package_and_a_mark_where_it_differs(package: Package):
    digest = package.now().removeprefix(f"{queryinst.__version__}+")
    package.git("init")
    first = package.commit()
    assert package.now() == f"{first}+{digest}"
    (package.folder.parent / "README.md").touch()
    package.commit()
    assert package.now() == f"{first}+{digest}", "nothing of the package has changed"
    dirty = set()
    for number in (2, 3):
        (package.folder / "__init__.py").write_text(f"a = {number}\n")
        dirty.add(package.now())
    assert len(dirty) == 2
    assert all(re.fullmatch(first + r"-dirty\+[0-9a-f]{8}", one) for one in dirty)
    assert re.fullmatch(package.commit() + r"\+[0-9a-f]{8}", package.now())


def test_the_same_code_by_another_name_has_not_changed(tmp_path: Path, package: Package):
    """Installed as a wheel, or committed in the meantime."""
    revision.take_part(tmp_path, resumed=False)
    before = revision.recorded(tmp_path)
    package.git("init")
    package.commit()
    assert package.now() not in before
    assert revision.differing(tmp_path) == ""
    assert revision.take_part(tmp_path, resumed=True) == before
    (package.folder / "__init__.py").write_text("a = 2\n")
    now = package.now()
    assert revision.differing(tmp_path) == f"the code has changed since: {before[0]} then, {now} now"
    assert revision.take_part(tmp_path, resumed=True) == [*before, now]


def test_where_git_fails_later_nothing_is_called_clean(package: Package, monkeypatch: pytest.MonkeyPatch):
    package.git("init")
    first = package.commit()
    ask = revision.git
    monkeypatch.setattr(revision, "git", lambda *words: None if words[0] == "status" else ask(*words))
    assert package.now().startswith(f"{first}-dirty+")


@pytest.mark.parametrize("place", [".venv/lib/site-packages", ""])
def test_the_users_repository_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package, place: str
):
    """An environment within it, tracked or not, or at its top as installed by `pip --target .`, untracked."""
    outer = Package(tmp_path / "theirs" / "own")
    outer.git("init")
    outer.commit()
    ours = Package(tmp_path / "theirs" / place / "queryinst")
    monkeypatch.setattr(revision, "PACKAGE", ours.folder)
    assert not revision.is_tracked()
    assert ours.now().startswith(f"{queryinst.__version__}+")
    if place:
        outer.commit()
        assert not revision.is_tracked()


def test_git_says_the_revision_and_whether_files_have_changed(package: Package):
    assert results.git_state() is None
    package.git("init")
    assert results.git_state() is None
    package.commit()
    assert results.git_state() == {"revision": package.git("rev-parse", "HEAD"), "dirty": False}
    (package.folder.parent / "new").touch()
    assert results.git_state() == {"revision": package.git("rev-parse", "HEAD"), "dirty": True}


def test_a_hooks_repository_is_not_ours(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package.git("init")
    first = package.commit()
    other = Package(tmp_path / "other" / "queryinst")
    other.git("init")
    other.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert package.now().startswith(f"{first}+")


def test_what_took_part_in_a_run_is_known_and_said(
    workplace: Path, package: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def train(config: object, data: object, folder: Path, run: str, more: object) -> training.Trained:
        (folder / "last.ckpt").touch()
        if len(seen) < 3:
            raise KeyboardInterrupt
        return dataclasses.replace(TRAINED)

    monkeypatch.setattr(training, "train", train)
    seen: list[str] = []
    for number, changes in ((1, 0), (1, 0), (2, 1), (2, 0), (3, 1)):
        (package.folder / "__init__.py").write_text(f"a = {number}\n")
        seen.append(package.now())
        if len(seen) < 3:
            with pytest.raises(KeyboardInterrupt):
                job.run(shapes_config())
        else:
            folder = job.run(shapes_config())
        text = "".join(capsys.readouterr())
        assert text.count("the code has changed since: ") == changes
        if changes:
            assert f"the code has changed since: {seen[-2]} then, {seen[-1]} now\n" in text
    result = json.loads((folder / "result.json").read_text())
    assert result["revisions"] == [seen[0], seen[2]]


def test_what_left_no_checkpoint_took_no_part(tmp_path: Path, package: Package):
    revision.take_part(tmp_path, resumed=False)
    (package.folder / "__init__.py").write_text("a = 2\n")
    now = package.now()
    assert revision.take_part(tmp_path, resumed=False) == [now]


def test_of_a_run_from_before_nothing_is_said(tmp_path: Path, package: Package):
    assert revision.differing(tmp_path) == ""
    assert revision.take_part(tmp_path, resumed=True) == []
    assert list(tmp_path.glob("*.txt")) == []
