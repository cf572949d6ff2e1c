"""Run an exported .pt2 file on an image: python run_pt2.py model.pt2 photo.jpg overlay.png

Needs torch, torchvision, NumPy and Pillow, and overlay.py beside it.
"""

import json

import torch
import torchvision  # noqa: F401 - makes its RoIAlign known to torch
from overlay import arguments, draw, prepare, read

asked = arguments(__doc__)
extra = {"queryinst": ""}
model = torch.export.load(asked.model, extra_files=extra).module()
record = json.loads(extra["queryinst"])
picture = read(asked.image)
images = torch.from_numpy(prepare(picture, record["short_side"], record["long_side"]))
with torch.inference_mode():
    found = model(images, torch.tensor([images.shape[2:]]))
draw(picture, images.shape[2:], [values[0].numpy() for values in found], record, asked.score).save(asked.overlay)
