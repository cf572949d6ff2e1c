"""A publisher on the loopback interface: files by path, with ranges, and faults to order."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from queryinst.checkpoints import download
from queryinst.zoo import OFFLINE, ZOO, Published

NAME, UNCHECKED, BY_HAND = "mmdet:tiny", "paddle:tiny", "hustvl:tiny"
Fault = Callable[["Handler"], bool]  # answers in its own way; whether that was all


class Publisher:
    """Serves `files`; `faults` are used up one a request, `asked` has the headers of every request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[dict[str, str]] = []
        self.tags = True
        handler = type("Bound", (Handler,), {"publisher": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def publishing(
    content: bytes, monkeypatch: pytest.MonkeyPatch, box: float = 42.0, mask: float = 37.5
) -> Iterator[Publisher]:
    """Has a file under three names of the zoo: with a checksum, without, and for browsers only."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", OFFLINE):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Publisher()
    file = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    for entry in (
        Published(NAME, f"{made.url}/{file}", file, box, mask),
        Published(UNCHECKED, f"{made.url}/tiny.pdparams", "tiny.pdparams", box, mask),
        Published(BY_HAND, f"{made.url}/page", "tiny.pth", box, mask, page=True),
    ):
        monkeypatch.setitem(ZOO, entry.name, entry)
        made.files[f"/{entry.file}"] = content
    monkeypatch.setattr(download, "WAITS", ())
    try:
        yield made
    finally:
        made.close()


class Handler(BaseHTTPRequestHandler):
    publisher: Publisher
    limit: int | None = None  # bytes that are sent before the connection is closed
    pause: float = 0.0  # seconds after each 64 KiB

    def do_GET(self) -> None:
        self.publisher.asked.append(dict(self.headers))
        if self.publisher.faults and self.publisher.faults.pop(0)(self):
            return
        content = self.publisher.files.get("/" + self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        begin, asked = 0, self.headers.get("Range")
        if asked and self.headers.get("If-Range") in (tag, None):
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        if begin and begin >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - begin))
        if self.publisher.tags:
            self.send_header("ETag", tag)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.send(content[begin:])

    def send(self, content: bytes) -> None:
        content = content[: self.limit]
        for start in range(0, len(content), 1 << 16):
            self.wfile.write(content[start : start + (1 << 16)])
            self.wfile.flush()
            time.sleep(self.pause)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # whoever asked has gone
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


def cut(after: int) -> Fault:
    """Close the connection after so many bytes."""

    def fault(handler: Handler) -> bool:
        handler.limit = after
        return False

    return fault


def slow(seconds: float) -> Fault:
    """Wait after each 64 KiB."""

    def fault(handler: Handler) -> bool:
        handler.pause = seconds
        return False

    return fault


def answer(code: int, content: bytes = b"", kind: str = "text/plain", **headers: str) -> Fault:
    """Something else than the file."""

    def fault(handler: Handler) -> bool:
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)
        return True

    return fault
