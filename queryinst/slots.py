"""The slots of a configuration: which parts it names, whether they can be had and take their settings, and making them.

A part is called by a name of ours, by a short name that an installed package gives it (entry points of the groups
`queryinst.backbone`, `queryinst.box_head`, ...), or as `module:Name`: a file in the folder that the command runs in, or
an installed package. `check_parts` needs no torch and imports nothing; `make` imports.
"""

import ast
import copy
import importlib
import importlib.metadata
import os
import sys
import traceback
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from queryinst.errors import UserError, nearest
from queryinst.library_names import LIBRARIES, check_library
from queryinst.part_config import Used, used
from queryinst.source import Signature, digest, require_module, signature

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
NETWORK = ("backbone", "box_head", "mask_head")  # slots of what a checkpoint has the weights of
SWINS = ("swin_t", "swin_s", "swin_b", "swin_l")
# Whose versions a result names, and which define no run: the same on another machine is the same run.
FRAMEWORK = ("torch", "torchvision", "pytorch_lightning", "lightning", "lightning_fabric", "queryinst", "wandb")
# What the source of a module of parts was when this process imported it.
IMPORTED: weakref.WeakKeyDictionary[ModuleType, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Slot:
    """What a slot takes; the contract of its parts is in `queryinst/parts.py`."""

    ours: tuple[str, ...]  # names of our own
    given: int  # arguments that the constructor gets by position, before the part's own by name


SLOTS = {
    "backbone": Slot((*RESNETS, *SWINS, "tiny"), 1),
    "box_head": Slot(("dynamic",), 2),
    "mask_head": Slot(("dynamic",), 2),
    "classification": Slot(("focal",), 0),
    "loss_term": Slot((), 0),
    "matching_cost": Slot((), 0),
    "augmentation": Slot((), 0),
    "reader": Slot(("coco",), 0),
    "metric": Slot((), 1),
    "callback": Slot((), 0),
    "logger": Slot((), 0),
}


def is_ours(part: Used) -> bool:
    return part.name in SLOTS[part.slot].ours


def is_library(part: Used) -> bool:
    """Whether a backbone is one of timm's or torchvision's, `timm:NAME`."""
    return part.slot == "backbone" and part.name.partition(":")[0] in LIBRARIES


def place(part: Used) -> tuple[str, str]:
    """Module and name of a part from outside. Raises UserError for a name that means nothing."""
    name = part.name if ":" in part.name else _short_names(part.slot).get(part.name, part.name)
    module, colon, attribute = name.partition(":")
    if colon and all(word.isidentifier() for word in (*module.split("."), attribute)):
        return module, attribute
    known = [*SLOTS[part.slot].ours, *_short_names(part.slot)]
    ways = [*known, *(["timm:NAME", "torchvision:NAME"] if part.slot == "backbone" else [])]
    ours = f"one of {', '.join(ways)}, or " if ways else ""
    raise UserError(
        f"{part.key}.name takes {ours}module:Name of your own; got '{part.name}'{nearest(part.name, known)}"
    )


def _short_names(slot: str) -> dict[str, str]:
    """What installed packages call their parts. Nothing of theirs is imported to know it."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=f"queryinst.{slot}")}


def outside(config: Any) -> list[Used]:
    """The parts of a configuration that are code from outside this package, timm and torchvision."""
    return [part for part in used(config) if not is_ours(part) and not is_library(part)]


def check_parts(config: Any) -> None:
    """Raise UserError for a part that does not exist or does not take its settings, as far as its source can tell."""
    search_here()
    for part in used(config):
        if is_ours(part):
            if part.args:
                raise UserError(f"{part.key}.args is for parts that have settings of their own; '{part.name}' has none")
        elif is_library(part):
            check_library(part)
        else:
            module, name = place(part)
            found = signature(module, name, SLOTS[part.slot].given, f"{part.key}.name={part.name}")
            if found:
                _check_arguments(part, found)


def _check_arguments(part: Used, takes: Signature) -> None:
    """A part's own settings against its signature: their names, and their types where these are annotated."""
    known = [parameter.name for parameter in takes.parameters]
    for name in part.args:
        if name not in known and not takes.open:
            raise UserError(
                f"{part.key}.args.{name}: {part.name} has no setting '{name}'{nearest(name, known)}; "
                f"it has {', '.join(known) or 'none'}"
            )
    for parameter in takes.parameters:
        if parameter.name not in part.args:
            if parameter.required:
                raise UserError(
                    f"{part.name} needs the setting '{parameter.name}': add +{part.key}.args.{parameter.name}=VALUE"
                )
        elif not _fits(part.args[parameter.name], parameter.annotation):
            got = part.args[parameter.name]
            raise UserError(
                f"{part.key}.args.{parameter.name} takes {parameter.annotation}, as {part.name} says; got {got!r}"
            )


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is of an annotated type; True where the annotation is no plain type."""
    plain: dict[str, tuple[type, ...]] = {"bool": (bool,), "str": (str,), "None": (type(None),), "dict": (dict,)}
    plain |= {"int": (int,), "float": (int, float), "list": (list,), "tuple": (list,), "Sequence": (list,)}
    fits = []
    for kind in _alternatives(annotation):
        name = kind.partition("[")[0].rpartition(".")[2]
        if name == "Literal":
            try:
                fits.append(value in ast.literal_eval(f"({kind.partition('[')[2].removesuffix(']')},)"))
            except ValueError:  # members of an Enum
                return True
        elif name not in plain:
            return True
        else:
            fits.append(isinstance(value, plain[name]) and (name == "bool" or not isinstance(value, bool)))
    return any(fits) or not fits


def _alternatives(annotation: str) -> list[str]:
    """`int | None`, `Optional[int]` and `Union[int, None]` as the types that they name."""
    if not annotation:
        return []
    try:
        node: Any = ast.parse(annotation.strip("'\""), mode="eval").body
    except SyntaxError:  # words for people
        return [annotation]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(ast.unparse(node.left)), *_alternatives(ast.unparse(node.right))]
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).rpartition(".")[2] in ("Optional", "Union"):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        none = ["None"] if ast.unparse(node.value).endswith("Optional") else []
        return [kind for one in inner for kind in _alternatives(ast.unparse(one))] + none
    return [ast.unparse(node)]


def sources(config: Any) -> dict[str, str]:
    """For each part from outside that defines a result: a hash of its source, by the key of its setting.

    Raises:
        UserError: there is no such module, or this process has imported it and it has changed since.
    """
    made = {}
    for part in outside(config):
        module = place(part)[0]
        if part.slot != "logger" and not _is_framework(module):
            where = f"{part.key}.name={part.name}"
            require_module(module, where)
            made[part.key] = digest(module)
            if (imported := sys.modules.get(module)) and IMPORTED.get(imported, made[part.key]) != made[part.key]:
                raise UserError(
                    f"{where}: the source of {module} has changed since it was imported; start Python anew to run it"
                )
    return made


def _is_framework(module: str) -> bool:
    return module.partition(".")[0] in FRAMEWORK


def is_allowed(part: Used, allowed: Iterable[str]) -> bool:
    """Whether the module of a part, or the part itself, is among those that may be imported."""
    return bool({place(part)[0], part.name} & set(allowed))


def require_allowed(parts: Iterable[Used], allowed: Iterable[str], where: str) -> None:
    """Raise UserError where a file names a part of a module whose code nobody has allowed to run."""
    missing = [part for part in parts if not is_allowed(part, allowed)]
    if missing:
        modules = ",".join(dict.fromkeys([*allowed, *(place(part)[0] for part in missing)]))
        raise UserError(
            f"{where} needs {' and '.join(f'{part.name} ({part.key})' for part in missing)}, code that is not in the "
            f"file: if you trust it, add allow=[{modules}] to the command (--allow MODULE for export and convert)"
        )


def make(part: Used, *given: Any) -> Any:
    """Import a part from outside and make it: `Name(*given, **args)`.

    Raises:
        UserError: the module cannot be imported, or the part cannot be made; the cause is the error itself.
    """
    module, name = place(part)
    where = f"{part.key}.name={part.name}"
    search_here()
    require_module(module, where)
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise UserError(f"{where}: {module} cannot be imported: {said(error)}") from error
    if imported not in IMPORTED and not _is_framework(module):
        IMPORTED[imported] = digest(module)
    if not hasattr(imported, name):
        raise UserError(f"{where}: the module {module} has no '{name}'")
    try:
        return getattr(imported, name)(*given, **copy.deepcopy(part.args))  # which it may change
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where} cannot be made with {part.args or 'no settings'}: {said(error)}") from error


def search_here() -> None:
    """Let modules be found in the folder that the command runs in, also where a script of elsewhere was started."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def said(error: BaseException) -> str:
    """What an error of other people's code says, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error}" + (
        f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    )
