"""A file from the web, whole and checked or not there: every way in which it may not come."""

import errno
import hashlib
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from publisher import Publisher, answer, cut, slow

from queryinst.checkpoints import download as module
from queryinst.checkpoints.download import download, require_checksum
from queryinst.errors import UserError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
OTHER = CONTENT[::-1]
SHA = hashlib.sha256(CONTENT).hexdigest()
HALF = 1 << 19


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(module, "CHUNK", 1 << 16)
    made = Publisher()
    made.files["/a.pth"] = CONTENT
    yield made
    made.close()


Fetch = Callable[..., Path]


@pytest.fixture
def fetch(publisher: Publisher, tmp_path: Path) -> Fetch:
    def call(checksum: str = "", url: str = "") -> Path:
        download(url or f"{publisher.url}/a.pth", tmp_path / "a.pth", "zoo:a", "fetch it elsewhere", checksum)
        return tmp_path / "a.pth"

    return call


def failed(fetch: Fetch, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        fetch(*arguments)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_with_progress(publisher: Publisher, fetch: Fetch, capsys: pytest.CaptureFixture[str]):
    file = fetch(SHA[:8])
    assert file.read_bytes() == CONTENT
    assert names(file.parent) == ["a.pth"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fetching zoo:a of 1.0 MB"
    assert lines[1:] == [f"fetching zoo:a: {tenth} %" for tenth in range(10, 101, 10)]
    assert publisher.ranges == [None]


def test_a_cut_download_goes_on_where_it_was(publisher: Publisher, fetch: Fetch, capsys: pytest.CaptureFixture[str]):
    publisher.faults = [cut(HALF), cut(1 << 18)]
    assert fetch(SHA[:8]).read_bytes() == CONTENT
    assert publisher.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + (1 << 18)}-"]
    assert "fetching zoo:a of 1.0 MB, from 0.5 MB on" in capsys.readouterr().err


def test_each_part_that_came_is_a_new_beginning(publisher: Publisher, fetch: Fetch):
    """However often it is cut, while something comes in between."""
    publisher.faults = [cut(1 << 16), cut(0), cut(1 << 16), cut(0), cut(1 << 16), cut(0)]
    assert fetch(SHA).read_bytes() == CONTENT
    assert len(publisher.asked) == 7


def test_also_in_the_next_command(publisher: Publisher, fetch: Fetch, tmp_path: Path):
    publisher.faults = [cut(HALF), *[cut(0)] * 3]
    said = failed(fetch)
    assert said == (
        f"{publisher.url}/a.pth did not come whole: 0.5 MB are here, then, 3 times, {HALF} of {2 * HALF} bytes came: "
        "the same command goes on from there, or fetch it elsewhere"
    )
    assert names(tmp_path) == ["a.pth.partial", "a.pth.partial.of"]
    assert fetch().read_bytes() == CONTENT
    assert publisher.ranges == [None, *[f"bytes={HALF}-"] * 4]
    assert names(tmp_path) == ["a.pth"]


def test_of_a_file_that_changed_meanwhile_all_is_fetched(publisher: Publisher, fetch: Fetch):
    publisher.faults = [cut(HALF), *[cut(0)] * 3]
    failed(fetch)
    publisher.files["/a.pth"] = OTHER
    assert fetch().read_bytes() == OTHER


def test_where_nothing_tells_files_apart_all_is_fetched(publisher: Publisher, fetch: Fetch):
    publisher.tags = False
    publisher.faults = [cut(HALF)]
    assert fetch().read_bytes() == CONTENT
    assert publisher.ranges == [None, None]


def test_a_weak_tag_does_not_tell_and_a_date_does(publisher: Publisher, fetch: Fetch):
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    publisher.faults = [answer(200, CONTENT[:100], ETag='W/"1"', Last_Modified=date), cut(0)]
    assert fetch("").read_bytes() == CONTENT[:100]
    partial = fetch().parent / "b.partial"
    response = SimpleNamespace(headers={"ETag": 'W/"1"', "Last-Modified": date})
    module._remember(response, partial)
    assert module._validator(partial).read_text() == date


@pytest.mark.parametrize(("have", "asked"), [(len(CONTENT), 1), (len(CONTENT) + 5, 2)])
def test_all_is_here_or_more_than_there_is(publisher: Publisher, fetch: Fetch, tmp_path: Path, have: int, asked: int):
    (tmp_path / "a.pth.partial").write_bytes((CONTENT + b"12345")[:have])
    (tmp_path / "a.pth.partial.of").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    assert fetch(SHA[:8]).read_bytes() == CONTENT
    assert len(publisher.asked) == asked


def test_a_part_that_nobody_asked_for(publisher: Publisher, fetch: Fetch):
    publisher.faults = [cut(HALF), answer(206, CONTENT[:9], Content_Range="bytes 0-8/9")]
    assert fetch(SHA[:8]).read_bytes() == CONTENT
    assert publisher.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_file_that_is_gone(publisher: Publisher, fetch: Fetch, tmp_path: Path, code: int):
    publisher.faults = [answer(code, b"<html>no</html>", "text/html")]
    assert failed(fetch).startswith(f"{publisher.url}/a.pth answered {code} ")
    assert len(publisher.asked) == 1
    assert names(tmp_path) == []


def test_a_server_that_is_busy(publisher: Publisher, fetch: Fetch):
    publisher.faults = [answer(500), answer(503)]
    assert fetch(SHA).read_bytes() == CONTENT
    publisher.faults = [answer(503)] * 3
    assert ": 0.0 MB are here, then, 3 times, the server answered 503 Service Unavailable: " in failed(fetch)


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("text/html", b"<html><title> Log in\n</title>", "(text/html, 'Log in'): fetch it elsewhere"),
        ("text/html", b"Please log in", "(text/html): fetch it elsewhere"),
        ("application/octet-stream", b"\n<!DOCTYPE html>", "(application/octet-stream): fetch it elsewhere"),
    ],
)
def test_a_page_in_its_place(publisher: Publisher, fetch: Fetch, tmp_path: Path, kind: str, content: bytes, said: str):
    publisher.faults = [answer(200, content, kind)]
    assert failed(fetch) == f"{publisher.url}/a.pth gave a page in place of the file {said}"
    assert names(tmp_path) == []
    assert fetch(SHA).read_bytes() == CONTENT


def test_another_checksum(publisher: Publisher, fetch: Fetch, tmp_path: Path):
    publisher.files["/a.pth"] = OTHER
    found = hashlib.sha256(OTHER).hexdigest()[:8]
    assert failed(fetch, SHA[:8]) == (
        f"zoo:a from {publisher.url}/a.pth is not what was published: its SHA-256 begins with {found}, not {SHA[:8]}; "
        "what came was deleted, and the same command fetches it again"
    )
    assert names(tmp_path) == []
    publisher.files["/a.pth"] = CONTENT
    assert fetch(SHA[:8]).read_bytes() == CONTENT
    with pytest.raises(UserError, match=rf"^mine is not .* delete {tmp_path}/a\.pth$"):
        require_checksum(tmp_path / "a.pth", "00000000", "mine")
    assert (tmp_path / "a.pth").exists()


def test_no_network(publisher: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    publisher.close()
    url = f"{publisher.url}/a.pth"
    assert failed(fetch) == (
        f"{url} cannot be reached ([Errno {errno.ECONNREFUSED}] Connection refused): check the network, behind a proxy "
        "set https_proxy, or fetch it elsewhere"
    )
    reason = socket.gaierror(-3, "Temporary failure in name resolution")
    opened: list[Any] = []

    def refused(opener: Any, request: Any, timeout: float) -> None:
        opened.append((request, timeout))
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refused)
    assert "(Temporary failure in name resolution" in failed(fetch).replace("[Errno -3] ", "")
    (tmp_path / "a.pth.partial").write_bytes(CONTENT[:HALF])
    (tmp_path / "a.pth.partial.of").write_text('"1"')
    assert "cannot be reached" in failed(fetch)
    assert len(opened) == 2, "nothing is tried again"
    assert (tmp_path / "a.pth.partial").stat().st_size == HALF


def test_a_network_that_goes_and_comes_back(publisher: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch):
    publisher.faults = [cut(HALF)]
    really, count = urllib.request.OpenerDirector.open, 0

    def flaky(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise urllib.error.URLError("unreachable")
        return really(*arguments, **named)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", flaky)
    assert fetch(SHA).read_bytes() == CONTENT
    assert (count, publisher.ranges) == (3, [None, f"bytes={HALF}-"])


def test_a_server_that_says_nothing_more(publisher: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    publisher.faults = [slow(2.0)]
    assert fetch(SHA).read_bytes() == CONTENT
    assert publisher.ranges == [None, f"bytes={1 << 16}-"]


def test_by_a_proxy(publisher: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch):
    """The publisher stands for one: it is asked for whole addresses."""
    monkeypatch.setenv("http_proxy", publisher.url.replace("//", "//me:secret@"))
    url = "http://publisher.invalid/a.pth"
    assert fetch(SHA, url).read_bytes() == CONTENT
    assert publisher.asked[0]["Host"] == "publisher.invalid"
    publisher.faults = [answer(407)]
    host = publisher.url.removeprefix("http://")
    said = failed(fetch, "", url)
    assert said == f"{url} answered 407 Proxy Authentication Required, by the proxy {host}: fetch it elsewhere"
    publisher.close()
    assert f"Connection refused), by the proxy {host}: check the network" in failed(fetch, "", url)
    monkeypatch.setenv("no_proxy", "publisher.invalid")
    assert "proxy 127" not in failed(fetch, "", url)


def test_a_disk_without_room_for_both_files(publisher: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch):
    room = 2 * len(CONTENT)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=room - 1))
    said = failed(fetch)
    assert " has 2 MB free, and zoo:a takes 2 MB until it is made ours: make room, or set QUERYINST_CACHE" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=room))
    assert fetch(SHA).read_bytes() == CONTENT


def test_a_file_of_unknown_length(publisher: Publisher, fetch: Fetch, tmp_path: Path):
    def without_length(handler: Any) -> bool:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)
        return True

    publisher.faults = [without_length]
    assert fetch(SHA).read_bytes() == CONTENT
