"""One large file from the web: with progress, continued where it was cut, whole and checked or not there at all.

By the standard library, which knows the proxies of the environment (`https_proxy`, `no_proxy`). pooch and torch.hub
begin anew after a cut, huggingface_hub continues files of its own site only.
"""

import contextlib
import hashlib
import http.client
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from queryinst.errors import UserError

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 3.0, 9.0)  # seconds before each further try, after one that brought nothing
BUSY = (408, 429, 500, 502, 503, 504)  # answers of a server that may do better soon
NETWORK = (OSError, http.client.HTTPException)  # what speaking to a server raises


class _CutError(Exception):
    """The file did not come to its end; it may be tried again."""


class _UnreachableError(_CutError):
    """There is no way to the server."""


def download(url: str, file: Path, name: str, otherwise: str, checksum: str = "") -> None:
    """Fetch a file. What came of one that was cut stays, as FILE.partial, and the next call goes on from there.

    Args:
        url: http or https.
        file: appears when it is whole and checked.
        name: what people call it.
        otherwise: what else people can do to have it, for messages.
        checksum: how its SHA-256 begins, hexadecimal; empty where nobody says.

    Raises:
        UserError: no network, a proxy, a cut connection, an answer that is not the file, or another checksum.
        OSError: it cannot be written, as where the disk is full.
    """
    partial = file.with_name(f"{file.name}.partial")
    waits, most, came = iter(WAITS), _size(partial), False
    while True:
        try:
            _go_on(url, partial, name, otherwise)
            break
        except _CutError as error:
            if _size(partial) > most:
                waits, most, came = iter(WAITS), _size(partial), True
            if isinstance(error, _UnreachableError) and not came:  # it will not be better in a moment
                raise UserError(
                    f"{url} cannot be reached ({error}){_proxy(url)}: check the network, behind a proxy set "
                    f"https_proxy, or {otherwise}"
                ) from None
            wait = next(waits, None)
            if wait is None:
                raise UserError(
                    f"{url} did not come whole: {_size(partial) / 1e6:.1f} MB are here, then, {1 + len(WAITS)} times, "
                    f"{error}{_proxy(url)}: the same command goes on from there, or {otherwise}"
                ) from None
            time.sleep(wait)
    require_checksum(partial, checksum, f"{name} from {url}", partial)
    _validator(partial).unlink(missing_ok=True)
    partial.replace(file)


def require_checksum(file: Path, checksum: str, what: str, delete: Path | None = None) -> None:
    """Raise UserError unless a file's SHA-256 begins so; where it does not, `delete` is deleted."""
    if not checksum:
        return
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(checksum):
        if delete:
            delete.unlink()
            _validator(delete).unlink(missing_ok=True)
        raise UserError(
            f"{what} is not what was published: its SHA-256 begins with {found[:8]}, not {checksum}; "
            + ("what came was deleted, and the same command fetches it again" if delete else f"delete {file}")
        )


def _go_on(url: str, partial: Path, name: str, otherwise: str) -> None:
    """One request, for what is missing yet. Raises _CutError where it does not come to the end."""
    response, have = _answer(url, partial, otherwise)
    if response is None:
        return
    with contextlib.closing(response):
        length = response.headers.get("Content-Length")
        total = int(length) + have if length and length.isdigit() else None
        _require_room(partial, total, have, name)
        chunks = _chunks(response)
        first = next(chunks, b"")
        if not have:
            _require_file(response, first, url, otherwise)
            _remember(response, partial)
        with partial.open("ab") as file, _progress(name, have, total) as advance:
            while first:
                file.write(first)
                advance(len(first))
                first = next(chunks, b"")
    if total is not None and _size(partial) != total:
        raise _CutError(f"{_size(partial)} of {total} bytes came")


def _answer(url: str, partial: Path, otherwise: str) -> tuple[Any, int]:
    """What the server says, nothing where all is here, and from which byte on it sends."""
    have, validator = _size(partial), _validator(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "queryinst"})
    if have and validator.is_file():
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator.read_text())  # of another file it sends all
    try:
        response = urllib.request.build_opener().open(request, timeout=TIMEOUT)  # with the proxies of now
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.headers.get("Content-Range") == f"bytes */{have}":
            return None, have
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
            raise _CutError("the server had less of the file than is here") from None
        if error.code in BUSY:
            raise _CutError(f"the server answered {error.code} {error.reason}") from None
        raise UserError(f"{url} answered {error.code} {error.reason}{_proxy(url)}: {otherwise}") from None
    except NETWORK as error:
        raise _UnreachableError(str(getattr(error, "reason", error)) or type(error).__name__) from None
    if response.status == http.client.PARTIAL_CONTENT:
        if str(response.headers.get("Content-Range")).startswith(f"bytes {have}-"):
            return response, have
        response.close()
        partial.unlink(missing_ok=True)
        raise _CutError("the server sent another part than was asked for")
    return response, 0


def _chunks(response: Any) -> Iterator[bytes]:
    """The bytes as they come. Raises _CutError where no more do."""
    while True:
        try:
            chunk = response.read(CHUNK)
        except NETWORK as error:
            raise _CutError(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk


def _require_file(response: Any, first: bytes, url: str, otherwise: str) -> None:
    """Raise UserError where a page came in place of the file, as networks send that want a login."""
    kind = response.headers.get_content_type()
    if kind == "text/html" or first.lstrip()[:1] == b"<":
        title = re.search(rb"<title>\s*([^<]{1,80})", first, re.IGNORECASE)
        said = f", '{title[1].decode(errors='replace').strip()}'" if title else ""
        raise UserError(f"{url} gave a page in place of the file ({kind}{said}){_proxy(url)}: {otherwise}")


def _require_room(partial: Path, total: int | None, have: int, name: str) -> None:
    """Raise UserError where the disk has no room for the file and for what is made of it, which is as large."""
    free, needed = shutil.disk_usage(partial.parent).free, 2 * (total or 0) - have
    if needed > free:
        raise UserError(
            f"{partial.parent} has {free / 1e6:.0f} MB free, and {name} takes {needed / 1e6:.0f} MB until it is made "
            "ours: make room, or set QUERYINST_CACHE to a folder elsewhere, and the same command goes on"
        )


def _remember(response: Any, partial: Path) -> None:
    """Begin anew, with what tells this file from a later one at the same address, without which none can go on."""
    tag = response.headers.get("ETag") or ""
    found = tag if tag.startswith('"') else response.headers.get("Last-Modified")  # weak tags do not say it of bytes
    partial.unlink(missing_ok=True)
    _validator(partial).unlink(missing_ok=True)
    if found:
        _validator(partial).write_text(found)


def _validator(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.of")


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _proxy(url: str) -> str:
    """The proxy on the way to an address, without the password that its own may have."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    bypassed = proxy is None or urllib.request.proxy_bypass(parts.hostname or "")
    return "" if proxy is None or bypassed else f", by the proxy {proxy.rpartition('@')[2]}"


@contextlib.contextmanager
def _progress(name: str, have: int, total: int | None) -> Iterator[Any]:
    """A bar on a terminal, elsewhere a line a tenth; gives the function that counts bytes."""
    size = f" of {total / 1e6:.1f} MB" if total else ""
    print(f"fetching {name}{size}{f', from {have / 1e6:.1f} MB on' if have else ''}", file=sys.stderr, flush=True)
    shown = sys.stderr.isatty()
    done, tenth = have, have * 10 // total if total else 0
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=total, completed=have)

        def advance(count: int) -> None:
            nonlocal done, tenth
            done += count
            bar.update(task, completed=done)
            if total and not shown and done * 10 // total > tenth:
                tenth = done * 10 // total
                print(f"fetching {name}: {tenth * 10} %", file=sys.stderr, flush=True)

        yield advance
