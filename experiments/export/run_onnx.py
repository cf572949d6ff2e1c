"""Run an exported ONNX file on an image: python run_onnx.py model.onnx photo.jpg overlay.png

Needs onnxruntime, NumPy and Pillow, and overlay.py beside it.
"""

import json

import numpy as np
import onnxruntime
from overlay import arguments, draw, prepare, read

asked = arguments(__doc__)
session = onnxruntime.InferenceSession(asked.model, providers=["CPUExecutionProvider"])
record = json.loads(session.get_modelmeta().custom_metadata_map["queryinst"])
picture = read(asked.image)
images = prepare(picture, record["short_side"], record["long_side"])
sizes = np.array([images.shape[2:]])
boxes, scores, labels, masks = session.run(["boxes", "scores", "labels", "masks"], {"images": images, "sizes": sizes})
draw(picture, images.shape[2:], (boxes[0], scores[0], labels[0], masks[0]), record, asked.score).save(asked.overlay)
