"""The boxes on their way: well-formed, all of them there, and in step."""

import base64
import re
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from queryinst.demo_page.journey import HOLD, LAST, MOVE, SIDE, journey
from queryinst.visualize.draw import colour

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
        moments = [0, HOLD, HOLD + MOVE, 2 * HOLD + MOVE, 2 * (HOLD + MOVE), 2 * (HOLD + MOVE) + LAST]
        assert times == pytest.approx([moment / moments[-1] for moment in moments], abs=1e-4)
        assert values[::2] == values[1::2]
        assert animation.get("dur") == f"{moments[-1]:.1f}s"
        assert animation.get("repeatCount") == "indefinite"
    steps = {one.get("attributeName"): one.get("values").split(";")[::2] for one in first.findall("animate")}
    assert steps == {
        "x": ["0.0", "10.0", "12.0"],
        "y": ["0.0", "10.0", "9.0"],
        "width": ["80.0", "20.0", "19.0"],
        "height": ["60.0", "20.0", "24.0"],
    }
    assert {name: first.get(name) for name in steps} == {name: values[-1] for name, values in steps.items()}
    assert first.get("stroke") == f"rgb{colour(0)}"


def test_the_clock_is_in_step_with_the_boxes():
    """A name is dark from half of the way to its frame until half of the way to the next."""
    whole = 2 * (HOLD + MOVE) + LAST
    first, second = HOLD + MOVE / 2, 2 * HOLD + 3 * MOVE / 2
    shown = []
    for text in tree(TRAIL, ["a", "b"]).findall(".//svg[@class='clock']/text"):
        animation = text.find("animate")
        assert animation.get("dur") == f"{whole:.1f}s"
        shown.append((text.text, animation.get("values"), animation.get("keyTimes")))
    assert shown == [
        ("proposals", "1;0.3", f"0;{first / whole:.4f}"),
        ("stage 1", "0.3;1;0.3", f"0;{first / whole:.4f};{second / whole:.4f}"),
        ("stage 2", "0.3;1;0.3", f"0;{second / whole:.4f};1.0000"),
    ]


def test_the_picture_has_a_margin_and_is_light():
    html = journey(PICTURE, PICTURE, TRAIL.astype(np.float32), ["a", "b"])
    assert html.count('viewBox="-3.2 -3.2 86.4 66.4"') == 4, "4 % of the longer side, round each of them"
    assert 'style="padding: 3.70%" alt="masks of stage 2"' in html
    assert '<image id="film-picture" width="80" height="60"' in html
    shown = [base64.b64decode(code) for code in re.findall(r"data:image/jpeg;base64,([^\"]+)", html)]
    masks, light = (cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR) for code in shown)
    assert abs(masks.astype(int) - 90).max() <= 2
    assert abs(light.astype(int) - 155).max() <= 2


def test_colours_are_not_exchanged():
    red = np.full((60, 80, 3), [250, 0, 0], np.uint8)
    code = re.findall(r"data:image/jpeg;base64,([^\"]+)", journey(red, red, TRAIL.astype(np.float32), ["a", "b"]))[0]
    seen = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)[30, 40]
    assert seen[2] > 240
    assert seen[0] < 10


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
