"""The boxes on their way: well-formed, all of them there, and in step."""

import base64
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from queryinst.demo_page.journey import SIDE, journey

PICTURE = np.full((60, 80, 3), 90, np.uint8)
TRAIL = np.array(
    [[[0, 0, 80, 60], [0, 0, 80, 60]], [[10, 10, 30, 30], [40, 5, 90, 70]], [[12, 9, 31, 33], [9, 9, 1, 1]]]
)


def tree(trail: np.ndarray, captions: list[str]) -> ET.Element:
    html = journey(PICTURE, PICTURE, trail.astype(np.float32), captions)
    return ET.fromstring(f"<div>{_closed(html)}</div>")


def _closed(html: str) -> str:
    """HTML's img has no end, XML's has."""
    head, image, tail = html.partition("<img ")
    inside, _, rest = tail.partition(">")
    return f"{head}{image}{inside}/>{rest}"


def test_every_box_moves_and_stands_in_every_still():
    root = tree(TRAIL, ["a <b> 0.9", "c & d 0.8"])
    moving = root.find(".//svg[@class='moving']")
    assert [title.text for title in moving.iter("title")] == ["c & d 0.8", "a <b> 0.9"], "the best on top"
    boxes = moving.findall("rect")
    assert len(boxes) == 2
    stills = root.findall(".//div[@class='film stills']/figure")
    assert [figure.find("figcaption").text for figure in stills] == ["proposals", "stage 1", "stage 2"]
    assert all(len(figure.findall(".//rect")) == 2 for figure in stills)
    assert [rect.get("stroke") for rect in boxes] == [rect.get("stroke") for rect in stills[0].iter("rect")]
    assert float(stills[1].findall(".//rect")[0].get("width")) == 50
    assert float(stills[2].findall(".//rect")[0].get("width")) == 0, "inside out"


def test_the_steps_of_a_box_are_its_boxes():
    root = tree(TRAIL, ["a", "b"])
    first = root.findall(".//svg[@class='moving']/rect")[-1]
    for animation in first.findall("animate"):
        values = animation.get("values").split(";")
        times = [float(time) for time in animation.get("keyTimes").split(";")]
        assert len(values) == len(times) == 2 * len(TRAIL), "each step stands still for a while"
        assert (times[0], times[-1]) == (0, 1)
        assert times == sorted(times)
    left = first.find("animate[@attributeName='x']").get("values").split(";")[::2]
    assert [float(value) for value in left] == [0, 10, 12]
    assert len(root.findall(".//svg[@class='clock']/text")) == 3


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_a_thin_picture(size: tuple[int, int]):
    picture = np.full((*size, 3), 90, np.uint8)
    html = journey(picture, picture, np.ones((2, 1, 4), np.float32), ["a"])
    code = base64.b64decode(html.partition('href="data:image/jpeg;base64,')[2].partition('"')[0])
    light = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR)
    assert light.shape[:2] == tuple(min(side, SIDE) for side in size)


def test_nothing_found():
    root = tree(np.zeros((3, 0, 4)), [])
    assert root.find(".//rect") is None
    assert len(root.findall(".//figure")) == 5
