"""Everything that people call an image becomes RGB, or one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from queryinst.data import images
from queryinst.errors import UserError
from queryinst.inference import pictures
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
    [GREY, GREY[..., None], torch.from_numpy(GREY)[None], torch.from_numpy(GREY), Image.fromarray(GREY)],
    ids=["plane", "channel", "tensor", "tensor of a plane", "pillow"],
)
def test_grey_becomes_three_equal_planes(source: Any):
    assert (to_picture(source) == GREY[..., None]).all()
    assert to_picture(source).shape == (40, 50, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA", "RGB"])
def test_every_kind_of_file(tmp_path: Path, mode: str, name: str):
    path = tmp_path / (name.replace("png", "jpg") if mode == "CMYK" else name)
    Image.new("RGB", (50, 40), (200, 200, 200)).convert(mode).save(path)
    pixels = read(path)
    assert pixels.shape == (40, 50, 3)
    assert abs(int(pixels.mean()) - 200) < (60 if mode == "1" else 3)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif", "a.bmp"])
def test_a_palette_gives_its_colours(tmp_path: Path, name: str):
    colours = [[10, 20, 30], [200, 100, 50], [0, 0, 255], [255, 254, 1]]
    picture = Image.fromarray(np.array([[0, 1], [2, 3], [3, 0]], np.uint8), "P")
    picture.putpalette([value for colour in colours for value in colour])
    picture.save(tmp_path / name, **({} if name == "a.bmp" else {"transparency": 1}))
    assert read(tmp_path / name).tolist() == [[colours[index] for index in row] for row in ([0, 1], [2, 3], [3, 0])]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_what_lies_below_stays(tmp_path: Path, mode: str):
    pixel = (10, 100, 200, 0) if mode == "RGBA" else (77, 0)
    picture = Image.new(mode, (2, 1), pixel)
    picture.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", picture):
        assert to_picture(source).tolist() == [[[10, 100, 200] if mode == "RGBA" else [77] * 3] * 2]


DEEP = np.array([[0, 256, 257, 513], [514, 32_896, 65_534, 65_535]], np.uint16)
SHALLOW = np.array([[0, 0, 1, 1], [2, 128, 254, 255]], np.uint8)  # divided by 257, down


def test_16_bits_become_8(tmp_path: Path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(DEEP).save(tmp_path / name)
        assert (read(tmp_path / name) == SHALLOW[..., None]).all()
    turned = Image.frombytes("I;16B", (4, 2), DEEP.astype(">u2").tobytes())  # the other order of bytes
    turned.save(tmp_path / "b.tif")
    for source in (tmp_path / "b.tif", turned, Image.fromarray(DEEP), DEEP, torch.from_numpy(SHALLOW)):
        assert (to_picture(source) == SHALLOW[..., None]).all()
    colours = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], 2)
    assert (to_picture(colours) == np.stack([SHALLOW, SHALLOW[::-1], SHALLOW[:, ::-1]], 2)).all()


def test_16_bits_on_their_side_are_turned_too(tmp_path: Path):
    note = Image.Exif()
    note[274] = 6
    Image.fromarray(DEEP).save(tmp_path / "a.png", exif=note)
    assert (read(tmp_path / "a.png") == np.rot90(SHALLOW, -1)[..., None]).all()


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
    Image.fromarray(RGB[..., 0].astype(np.int32)).save(tmp_path / "whole.tif")
    for name, sentence in (
        ("cut.jpg", "cannot be read as an image: .*truncated"),
        ("text.jpg", "cannot be read as an image"),
        ("gone.jpg", "does not exist"),
        (".", "cannot be read as an image"),
        ("float.tif", "pixels of 32 bits"),
        ("whole.tif", "pixels of 32 bits"),
    ):
        with pytest.raises(UserError, match=sentence) as error:
            read(tmp_path / name)
        assert str(tmp_path) in str(error.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # so that 2,000 are an attack
    with pytest.raises(UserError, match=r"whole\.jpg has more than 178 million pixels: make it smaller"):
        read(whole)
    monkeypatch.undo()
    monkeypatch.setattr(images, "decode_jpeg", lambda path: bytearray(2**62))  # more than any machine has
    with pytest.raises(UserError, match=r"whole\.jpg does not fit into memory: make it smaller, or cut it$"):
        read(whole)


def test_the_largest_image_is_pillows():
    assert Image.MAX_IMAGE_PIXELS is not None
    assert pictures.LARGEST == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (RGB.astype(np.float32), "of uint8; got 40x50x3 of float32"),
        (RGB[:0], "of uint8; got 0x50x3 of uint8"),
        (RGB[None], "of uint8; got 1x40x50x3 of uint8"),
        (RGB[0, 0], "of uint8; got 3 of uint8"),
        (torch.zeros(3, 4, 4), "of uint8; got 4x4x3 of float32"),
        ([[1, 2]], "of uint8; got 1x2 of int64"),
        (3, "of uint8; got one value of int64"),
        (object(), "of uint8; got one value of object"),
        (RGB[..., :2], "1, 3 or 4 channels; got 2: (40, 50, 2), height first"),
        (np.dstack([RGB, RGB[..., :2]]), "1, 3 or 4 channels; got 5: (40, 50, 5), height first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_one_sentence(source: Any, sentence: str):
    with pytest.raises(UserError) as error:
        to_picture(source)
    assert str(error.value).startswith("an image must ")
    assert str(error.value).endswith(sentence)
