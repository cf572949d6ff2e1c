"""Which format a file or folder is of, by what is in it."""

from itertools import islice
from pathlib import Path
from types import ModuleType

from queryinst.errors import UserError, nearest
from queryinst.formats import cityscapes, cvat, instance_maps, label_studio, labelme, via, yolo
from queryinst.formats.files import read_json, require_all
from queryinst.formats.found import Found, Request

BY_NAMES: tuple[ModuleType, ...] = (cityscapes, yolo, cvat, instance_maps)  # `matches(source)`
BY_CONTENT: tuple[ModuleType, ...] = (labelme, via, label_studio)  # JSON; `is_one(content)`
FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (*BY_NAMES, *BY_CONTENT)}
LOOKED_AT = 20  # JSON files of a folder


def read(request: Request, name: str | None = None) -> tuple[Found, str]:
    """All that is in the source, and what its format is called.

    Args:
        request: what to read.
        name: of the format; None to recognise it.

    Raises:
        UserError: the format is not known, a file cannot be read, or images are missing.
    """
    if not request.source.exists():
        raise UserError(f"{request.source} does not exist; wanted a file or folder of annotations")
    module = FORMATS.get(name) if name else recognise(request.source)
    if module is None:
        raise UserError(f"--format '{name}' is not known{nearest(name or '', FORMATS)}; there are {', '.join(FORMATS)}")
    found = _read(module, request)
    require_all(found, request)
    if not found.pictures:
        raise UserError(f"{request.source} has no images that {module.WHAT} would have; is it of another format?")
    return found, module.WHAT


def _read(module: ModuleType, request: Request) -> Found:
    try:
        found: Found = module.read(request)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, OSError) as error:
        # A value of a kind nobody thinks of.
        kind = type(error).__name__
        raise UserError(f"{request.source} cannot be understood as {module.WHAT}: {kind}: {error}") from error
    return found


def recognise(source: Path) -> ModuleType:
    """The one format that a file or folder is of. Raises UserError where there is none, or more than one."""
    found = [module for module in BY_NAMES if module.matches(source)]
    if not found:
        found = [module for module in BY_CONTENT if _has(source, module)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{name}: {module.WHAT}" for name, module in FORMATS.items())
    if found:
        both = " and ".join(module.NAME for module in found)
        raise UserError(f"{source} looks like {both}; say which with --format")
    if any(_is_coco(content) for content in _contents(source)):
        raise UserError(
            f"{source} is in COCO's format, which training reads as it is: data=coco data.root=FOLDER; "
            "python -m queryinst.dataset split, merge, filter and fix take it too"
        )
    raise UserError(f"{source} is of no format that is known; wanted {known}; --format says which")


def _contents(source: Path) -> list[object]:
    """The first JSON files."""
    if source.is_file():
        return [read_json(source)] if source.suffix.lower() == ".json" else []
    return [read_json(path) for path in sorted(islice(source.rglob("*.json"), LOOKED_AT))]


def _has(source: Path, module: ModuleType) -> bool:
    return any(module.is_one(content) for content in _contents(source))


def _is_coco(content: object) -> bool:
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()
