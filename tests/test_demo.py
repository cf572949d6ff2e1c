"""`python -m queryinst.demo` as a user has it: in a browser, without a network; and the mistakes before it starts."""

import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL, Run, small_model
from PIL import Image

from queryinst.checkpoints.load import load
from queryinst.config import AugmentationConfig, BackboneConfig, ModelConfig, TrainConfig
from queryinst.demo_page.look import Look

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
QUIET += ("--disable-sync", "--no-first-run")
AUGMENTATION = AugmentationConfig(test_short_side=64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network of three stages that has learned nothing but to differ in its scores."""
    torch.manual_seed(0)
    model = small_model(num_stages=3)
    for stage in model.stages:
        torch.nn.init.normal_(stage.box.cls.weight, std=1.0)
        torch.nn.init.constant_(stage.box.cls.bias, -2.0)
        torch.nn.init.normal_(stage.box.reg.weight, std=0.05)
    config = TrainConfig(
        model=ModelConfig(**{**SMALL, "num_stages": 3}),
        backbone=BackboneConfig(name="tiny", frozen_stages=-1, norm="batch"),
        augmentation=AUGMENTATION,
    )
    record = {
        "config": dataclasses.asdict(config),
        "category_ids": [1, 2, 3],
        "category_names": ["cat", "dog", "<cow>"],
        "run": "0123abcd",
    }
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "queryinst": record, "global_step": 5}, path)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def address(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a running page, on a machine whose proxy leads nowhere."""
    port, folder = free_port(), tmp_path_factory.mktemp("page")
    nowhere = {name: f"http://127.0.0.1:{free_port()}" for name in ("http_proxy", "https_proxy", "all_proxy")}
    environment = {**os.environ, **nowhere, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), "no_proxy": ""}
    words = [f"checkpoint={checkpoint}", f"port={port}", "megabytes=1", "megapixels=1", "score=0.6", "accelerator=cpu"]
    with (folder / "log").open("w") as log:
        page = subprocess.Popen(
            [sys.executable, "-m", "queryinst.demo", *words], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    said = f"the page is at http://127.0.0.1:{port}; Ctrl+C ends it"
    end = time.monotonic() + 120
    while said not in (folder / "log").read_text():
        assert page.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    page.terminate()
    page.wait(20)
    text = (folder / "log").read_text()
    assert "Traceback" not in text
    assert "share" not in text
    assert not list(folder.glob("queryinst-demo-*")), "uploads end with the page"


def straight() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def status(request: urllib.request.Request) -> int:
    try:
        with straight().open(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_server_answers_its_own_names_only(address: str):
    assert status(urllib.request.Request(address)) == 200
    assert status(urllib.request.Request(address, headers={"Host": "elsewhere.example"})) == 400


@pytest.mark.skipif(sys.platform != "linux", reason="of 127.0.0.0/8 others have one address")
def test_the_page_is_at_one_address_alone(address: str):
    port = int(address.rpartition(":")[2])
    for host, heard in (("127.0.0.1", True), ("127.0.0.2", False)):
        with socket.socket() as probe:
            assert (probe.connect_ex((host, port)) == 0) == heard, host


def test_a_larger_file_is_refused_by_the_server_too(address: str):
    """The page refuses it before it is sent; whoever has no page is refused as well."""
    for size, expected in ((1000, 200), (1_100_000, 413)):
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        request = urllib.request.Request(
            f"{address}/gradio_api/upload",
            data=head + bytes(size) + b"\r\n--x--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert status(request) == expected


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser(address: str, checkpoint: Path, tmp_path: Path):
    from playwright.sync_api import expect, sync_playwright

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(rng.integers(0, 256, (700, 700, 3), np.uint8)).save(tmp_path / "heavy.png")
    Image.new("L", (1001, 1000)).save(tmp_path / "wide.png")
    loaded = load(checkpoint)
    look = Look(loaded.build(), AUGMENTATION, loaded.config.model.postprocess, pixels)

    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        requests: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        upload = page.locator("input[type=file]")
        upload.set_input_files(tmp_path / "picture.png")
        sliders = dict(zip(("score", "stages", "proposals"), page.locator("input[type=range]").all(), strict=True))

        def shows(score: float, stages: int, proposals: int) -> int:
            number = len(look.show(score, stages, proposals).detections.scores)
            expect(page.locator(".said .count")).to_have_text(f"{number} instance{'' if number == 1 else 's'}")
            expect(page.locator(".moving rect")).to_have_count(number)
            expect(page.locator(".stills figure")).to_have_count(stages + 1)
            return number

        numbers = [shows(0.6, 3, 6)]
        masks = page.locator(".film img")
        expect(masks).to_have_attribute("alt", "masks of stage 3")
        assert masks.evaluate("image => image.naturalWidth") >= 80
        first, place = masks.get_attribute("src"), "document.querySelector('.moving rect').x.animVal.value"
        before = page.evaluate(place)
        page.wait_for_function(f"before => {place} != before", arg=before)
        sliders["score"].fill("0.75")
        numbers.append(shows(0.75, 3, 6))
        assert masks.get_attribute("src") != first
        sliders["score"].fill("0.2")
        numbers.append(shows(0.2, 3, 6))
        sliders["score"].fill("0.6")
        sliders["stages"].fill("1")
        numbers.append(shows(0.6, 1, 6))
        sliders["stages"].fill("2")
        numbers.append(shows(0.6, 2, 6))
        sliders["proposals"].fill("2")
        numbers.append(shows(0.6, 2, 2))
        assert 0 < numbers[1] < numbers[0] < numbers[2], "a threshold"
        assert numbers[2] != numbers[3] != numbers[4], "stages"
        assert numbers[4] > numbers[5], "proposals"
        assert page.locator("cow").count() == 0, "a class name is no HTML"

        for name, sentence in (
            ("text.png", "text.png is not an image that can be read"),
            ("wide.png", "wide.png has 1001 x 1000 pixels, more than the 1 million"),
            ("picture.png", None),
            ("heavy.png", "exceed the maximum allowed size"),
        ):
            page.get_by_label(re.compile("clear|remove", re.IGNORECASE)).first.click()
            expect(page.locator(".said")).to_contain_text("Drop an image")
            upload.set_input_files(tmp_path / name)
            if sentence is None:
                shows(0.6, 2, 2)
            else:
                expect(page.locator("body")).to_contain_text(sentence)
                expect(page.locator(".film")).to_have_count(0)
        browser.close()
    assert not faults
    outside = [url for url in requests if not url.startswith((f"{address}/", "data:", "blob:"))]
    assert not outside
    assert len(requests) > 10


def test_the_mistakes_of_a_user(checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, text = run("demo", f"checkpoint={checkpoint}", f"port={port}")
        assert code == 2
        assert f"port={port} is in use" in text
        assert text.count("\n") == 1
    code, text = run("demo", "checkpoint=nowhere.ckpt", f"port={free_port()}")
    assert code == 2
    assert "nowhere.ckpt" in text
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, text = run("demo", f"checkpoint={checkpoint}")
    assert code == 2
    assert "pip install 'queryinst[demo]'" in text
    code, text = run("demo")
    assert code == 2
    assert "checkpoint must be given" in text
