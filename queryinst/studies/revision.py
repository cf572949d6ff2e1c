"""Which code this is: the revision of the package's own files, so that a run knows what it was trained by."""

import functools
import hashlib
import os
import subprocess
from pathlib import Path

from queryinst import __version__
from queryinst.studies.files import write_whole

PACKAGE = Path(__file__).parents[1]
REVISIONS = "revisions.txt"  # of a run folder: a line for each that took part, in their order


@functools.cache
def revision() -> str:
    """Of the sources of this package: the commit that changed them last, and a digest of them where they differ from it
    (`1f2e3d4c5b6a+0a1b2c3d`); without a repository of their own the version and the digest (`0.1.0+0a1b2c3d`).
    """
    commit = git("log", "-1", "--format=%h", "--abbrev=12", "--", PACKAGE.name) if is_tracked() else ""
    if commit and not git("status", "--porcelain", "--", PACKAGE.name):
        return commit
    return f"{commit or __version__}+{_digest()}"


def is_tracked() -> bool:
    """Whether the package lies in a repository of its own: not in an environment within one of the user's."""
    top = git("rev-parse", "--show-toplevel")
    tracked = git("ls-files", "--", f"{PACKAGE.name}/__init__.py")
    return bool(top and tracked) and Path(top).resolve() == PACKAGE.parent.resolve()


def git(*words: str) -> str:
    """What git says of the folder around the package; nothing where it says no, or is not there."""
    hooks = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # within a hook, of another repository
    environment = {name: value for name, value in os.environ.items() if name not in hooks}
    try:
        done = subprocess.run(
            ["git", *words], cwd=PACKAGE.parent, env=environment, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def recorded(folder: Path) -> list[str]:
    """The revisions that took part in a run; none where it was begun before they were kept."""
    try:
        return (folder / REVISIONS).read_text().split()
    except (OSError, ValueError):
        return []


def take_part(folder: Path, resumed: bool) -> list[str]:
    """Record the revision of a run that begins or goes on.

    Returns:
        all that took part; of a run from before there was a record, none.
    """
    before = recorded(folder) if resumed else []
    if resumed and not before:
        return []
    after = before if before and before[-1] == revision() else [*before, revision()]
    write_whole(folder / REVISIONS, "".join(f"{one}\n" for one in after))
    return after


def differing(folder: Path) -> str:
    """A line where this code is not the code that a run was trained by last; otherwise nothing."""
    before = recorded(folder)
    if not before or before[-1] == revision():
        return ""
    return f"the code has changed since: {before[-1]} then, {revision()} now"
