"""`python -m queryinst.predict`: instances drawn on images, and a COCO results file.

python -m queryinst.predict checkpoint=outputs/RUN/best.ckpt source=photo.jpg
python -m queryinst.predict checkpoint=... source=FOLDER output=OVERLAYS score=0.5
"""

import json
import sys
from pathlib import Path

from queryinst.command_config import PredictConfig
from queryinst.errors import UserError
from queryinst.studies.command import command

RESULTS = "predictions.json"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def paths_of(source: Path) -> list[Path]:
    """The image file, or the images of a folder in order of their names. Raises UserError where there are none."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"source={source} does not exist; give an image or a folder of images")
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"source={source} has no images; looked for {', '.join(SUFFIXES)}")
    return found


def device_of(accelerator: str) -> str:
    """The torch device of Lightning's word for it. Raises UserError where this machine has none."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    here = found.type if found else "cpu"
    if accelerator in ("auto", "cpu"):
        return here if accelerator == "auto" else "cpu"
    if here != {"gpu": "cuda"}.get(accelerator, accelerator):
        raise UserError(f"accelerator={accelerator}: this machine, as torch sees it, has only {here}; give auto or cpu")
    return here


def _require_some(paths: list[Path], problems: list[str]) -> None:
    if len(problems) == len(paths):
        raise UserError(f"none of the {len(paths)} images can be read, first: {problems[0]}")


@command("predict", PredictConfig)
def main(config: PredictConfig) -> None:
    paths = paths_of(Path(config.source))
    import cv2
    import torch
    from rich.progress import track

    from queryinst.checkpoints.load import load
    from queryinst.data.coco import CocoDataset
    from queryinst.data.collate import FixedSampler
    from queryinst.data.datamodule import loader
    from queryinst.data.images import image_file, read_image
    from queryinst.data.transforms import EvaluationGeometry
    from queryinst.evaluation.coco import to_coco
    from queryinst.models.postprocess import detect
    from queryinst.visualize import draw

    checkpoint = load(config.checkpoint)
    device = device_of(config.accelerator)
    model = checkpoint.build().to(device)
    problems, images = [], {}
    for number, path in enumerate(paths, 1):
        try:
            images[number] = image_file(path, number)
        except UserError as error:
            problems.append(str(error))
    _require_some(paths, problems)
    numbered = len({path.stem for path in paths if path.stem.isdecimal()}) == len(paths)  # named by their COCO ids
    output, results = Path(config.output), []
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / RESULTS).write_text("[]")
    except OSError as error:
        raise UserError(f"output={output} cannot be written ({error.strerror}); give another folder") from None
    dataset = CocoDataset(list(images.values()), EvaluationGeometry(checkpoint.config.augmentation))
    batches = loader(dataset, FixedSampler(len(dataset)), config.batch_size, config.num_workers)
    for batch in track(batches, "looking", transient=True):
        problems += batch.problems
        batch = batch.to(device)
        with torch.inference_mode():
            found = detect(
                model,
                model(batch.images, batch.sizes),
                batch.sizes,
                batch.original_sizes,
                checkpoint.config.model.postprocess,
            )
        for image_id, detections in zip(batch.image_ids, found, strict=True):
            if image_id in images:
                path, detections = images[image_id].path, detections.above(config.score)
                picture = draw.predictions(read_image(images[image_id]), detections, checkpoint.category_names)
                (output / f"{path.name}.png").write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
                coco_id = int(path.stem) if numbered else image_id
                results += [
                    {"file_name": path.name, **entry} for entry in to_coco(coco_id, detections, checkpoint.category_ids)
                ]
    _require_some(paths, problems)
    (output / RESULTS).write_text(json.dumps(results))
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    print(f"{len(results)} instances in {len(paths) - len(problems)} images; overlays and JSON are in {output}")


if __name__ == "__main__":
    main()
