"""What the page takes, and the sentence for what it does not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from queryinst.demo_page.upload import FORMATS, read_upload
from queryinst.errors import UserError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list(tmp_path: Path, kind: str):
    path = tmp_path / "misnamed.png"
    PICTURE.save(path, kind)
    pixels = read_upload(path, 1)
    assert pixels.shape == (30, 40, 3)
    if kind in ("BMP", "PNG", "TIFF"):
        assert (pixels == np.asarray(PICTURE)).all()


def test_as_many_pixels_as_are_taken(tmp_path: Path):
    Image.new("L", (1000, 1000)).save(tmp_path / "a.png")
    assert read_upload(tmp_path / "a.png", 1).shape == (1000, 1000, 3)


def test_a_photograph_stands_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(tmp_path / "a.jpg", exif=exif)
    assert read_upload(tmp_path / "a.jpg", 1).shape == (40, 30, 3)


def test_text_and_programs_are_no_images(tmp_path: Path):
    for content in (b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match=r"^a\.png is not an image that can be read; give one of BMP, GIF"):
            read_upload(tmp_path / "a.png", 1)


def test_a_damaged_image_is_said_to_be_one(tmp_path: Path):
    PICTURE.save(tmp_path / "whole.jpg", progressive=True)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"^cut\.jpg cannot be read as an image: image file is truncated"):
        read_upload(tmp_path / "cut.jpg", 1)


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("L", (1001, 1000)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^a\.png has 1001 x 1000 pixels, more than the 1 million"):
        read_upload(tmp_path / "a.png", 1)
    assert read_upload(tmp_path / "a.png", 2).shape == (1000, 1001, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a bomb, as Pillow calls what is twice as large
    with pytest.raises(UserError, match=r"^a\.png has far more than 1 million pixels"):
        read_upload(tmp_path / "a.png", 1)
