"""Everything that people call an image becomes RGB, or one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from queryinst.errors import UserError
from queryinst.inference.pictures import read, to_picture

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
GREY = RGB[..., 0]


def test_a_photo_of_a_camera_on_its_side_is_turned(tmp_path: Path):
    path, pixels, note = tmp_path / "photo.jpg", np.zeros((40, 50, 3), np.uint8), Image.Exif()
    pixels[:, :25] = 255
    note[274] = 6  # turn by 90 degrees, clockwise
    Image.fromarray(pixels).save(path, exif=note)
    turned = read(path)
    assert turned.shape == (50, 40, 3)
    assert turned[:20].min() > 200
    assert turned[30:].max() < 60
    with Image.open(path) as opened:
        assert (to_picture(opened) == turned).all()


@pytest.mark.parametrize(
    "source",
    [RGB, Image.fromarray(RGB), torch.from_numpy(RGB).permute(2, 0, 1), np.dstack([RGB, GREY]), RGB[:, ::-1][:, ::-1]],
    ids=["array", "pillow", "tensor", "alpha", "strided"],
)
def test_colours_stay_what_they_are(source: Any):
    picture = to_picture(source)
    assert (picture == RGB).all()
    assert picture.flags.c_contiguous


@pytest.mark.parametrize(
    "source",
    [GREY, GREY[..., None], torch.from_numpy(GREY)[None], GREY.astype(np.uint16) * 257, Image.fromarray(GREY)],
    ids=["plane", "channel", "tensor", "16-bit", "pillow"],
)
def test_grey_becomes_three_equal_planes(source: Any):
    assert (to_picture(source) == GREY[..., None]).all()
    assert to_picture(source).shape == (40, 50, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA", "RGB", "I;16"])
def test_every_kind_of_file(tmp_path: Path, mode: str, name: str):
    path = tmp_path / (name.replace("png", "jpg") if mode == "CMYK" else name)
    if mode == "I;16":
        Image.fromarray(np.full((40, 50), 200 * 257, np.uint16)).save(path)
    else:
        Image.new("RGB", (50, 40), (200, 200, 200)).convert(mode).save(path)
    pixels = read(path)
    assert pixels.shape == (40, 50, 3)
    assert abs(int(pixels.mean()) - 200) < (60 if mode == "1" else 3)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True, "quality": 30}], ids=str)
def test_a_jpeg_has_the_pixels_that_pillow_reads(tmp_path: Path, options: dict[str, Any]):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, **options)
    with Image.open(path) as picture:
        assert (read(path) == np.asarray(picture)).all()


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, text = tmp_path / "whole.jpg", tmp_path / "text.jpg"
    Image.fromarray(RGB).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-300])
    text.write_text("no image")
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    for name, sentence in (
        ("cut.jpg", "cannot be read as an image: .*truncated"),
        ("text.jpg", "cannot be read as an image"),
        ("gone.jpg", "does not exist"),
        (".", "cannot be read as an image"),
        ("float.tif", "pixels of 32 bits"),
    ):
        with pytest.raises(UserError, match=sentence) as error:
            read(tmp_path / name)
        assert str(tmp_path) in str(error.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # so that 2,000 are an attack
    with pytest.raises(UserError, match=r"whole\.jpg has more than 178 million pixels: make it smaller"):
        read(whole)


@pytest.mark.parametrize(
    "source", [RGB.astype(np.float32), RGB[..., :2], RGB[:0], RGB[None], torch.zeros(3, 4, 4), [[1, 2]], object(), 3]
)
def test_what_is_no_image_is_one_sentence(source: Any):
    with pytest.raises(UserError, match="an image must"):
        to_picture(source)
