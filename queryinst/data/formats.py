"""Which tool's own format a parsed annotation file is in, where it is not COCO's."""

from typing import Any


def format_of(content: Any) -> str | None:
    """The name of the format, as people call it; None where it is none that is known."""
    if isinstance(content, list):
        return _of_list(content)
    if not isinstance(content, dict):
        return None
    if "shapes" in content and ("imagePath" in content or "imageData" in content):
        return "labelme's format"
    if "_via_img_metadata" in content:
        return "a project of the VGG Image Annotator (VIA)"
    entries = list(content.values())
    if entries and all(isinstance(entry, dict) and {"regions", "filename"} <= entry.keys() for entry in entries):
        return "the VGG Image Annotator's format (VIA)"
    return None


def _of_list(entries: list[Any]) -> str | None:
    """Of a list, by its first entry."""
    first = entries[0] if entries else None
    if not isinstance(first, dict):
        return None
    if "data" in first and ({"annotations", "completions", "predictions"} & first.keys()):
        return "Label Studio's own format"
    if {"image_id", "score"} <= first.keys():
        return "a list of COCO results, which are predictions"
    if "image" in first and "annotations" in first:
        return "CreateML's format"
    return None
