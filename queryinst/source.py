"""Where the source of a part lies, what its constructor takes, and which files it is made of: read, never imported.

A part's module may import torch, or run for seconds, or have been named by somebody else's file. So everything that can
be known of it without running it comes from here.
"""

import ast
import hashlib
import importlib.machinery
import importlib.util
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from queryinst.errors import UserError, nearest

Definition = ast.ClassDef | ast.FunctionDef
INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))


@dataclass(frozen=True)
class Parameter:
    """One that a constructor takes by its name."""

    name: str
    required: bool
    annotation: str  # as it is written; empty where there is none


@dataclass(frozen=True)
class Signature:
    """What a constructor takes after the arguments that its slot gives."""

    parameters: list[Parameter]
    open: bool  # `**kwargs`: any other name as well


def spec_of(module: str) -> ModuleSpec | None:
    """Where a module is, without running it or the packages that it lies in."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    name = top
    for part in rest:
        name = f"{name}.{part}"
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def require_module(module: str, where: str) -> Path | None:
    """The file of a module, None where it has none of Python. Raises UserError where there is no such module."""
    spec = spec_of(module)
    if spec is None:
        beside = sorted(path.stem for path in Path.cwd().glob("*.py"))
        raise UserError(
            f"{where}: there is no module '{module}', neither a file {module.replace('.', '/')}.py in the folder "
            f"{Path.cwd()} nor an installed package{nearest(module, beside)}"
        )
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def definition(module: str, name: str, where: str, depth: int = 8) -> tuple[str, Definition] | None:
    """The class or function `name`, and the module that defines it, through `from x import y`; None where reading the
    source cannot tell.

    Raises:
        UserError: there is no such module, its source is no Python, or it has no such name.
    """
    file = require_module(module, where)
    if file is None or depth == 0:
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{where}: {file}{line} is no Python: {error.args[0]}") from None
    known: set[str] = set()
    for node in _statements(tree.body):
        if isinstance(node, Definition):
            known.add(node.name)
            if node.name == name:
                return module, node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known.add(alias.asname or alias.name)
                if (alias.asname or alias.name) == name:
                    return definition(_absolute(node, module, file), alias.name, where, depth - 1)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Import):
            known |= _bound(node)
    dynamic = {"*", "__getattr__"} & known
    if name not in known and not dynamic:
        raise UserError(f"{where}: {file} has no class '{name}'{nearest(name, known)}")
    return None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, also inside `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, field, []))


def _bound(node: ast.Assign | ast.AnnAssign | ast.Import) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The full name of the module that `from .x import y` means."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def signature(module: str, name: str, given: int, where: str, depth: int = 8) -> Signature | None:
    """What `module:name` takes by name, after `given` arguments by position; None where reading cannot tell.

    Raises:
        UserError: as `definition`.
    """
    found = definition(module, name, where)
    if found is None or depth == 0:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return None if node.decorator_list else _signature(node.args, given)
    made = [entry for entry in node.body if isinstance(entry, ast.FunctionDef) and entry.name == "__init__"]
    if made:
        return None if made[-1].decorator_list else _signature(made[-1].args, given + 1)
    if node.decorator_list or node.keywords:  # a dataclass, a metaclass
        return _fields(node, given)
    bases = [base for base in node.bases if ast.unparse(base).rpartition(".")[2] not in ("Protocol", "object", "ABC")]
    if not bases:
        return Signature([], open=False)
    if len(bases) == 1 and isinstance(bases[0], ast.Name):
        return signature(module, bases[0].id, given, where, depth - 1)
    return None


def _signature(arguments: ast.arguments, given: int) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    named = [*zip(positional, defaults, strict=True)][given:]
    named += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return Signature([_parameter(one.arg, value, one.annotation) for one, value in named], arguments.kwarg is not None)


def _fields(node: ast.ClassDef, given: int) -> Signature | None:
    """Of a dataclass without a base."""
    if node.bases or [ast.unparse(one).partition("(")[0].rpartition(".")[2] for one in node.decorator_list] != [
        "dataclass"
    ]:
        return None
    entries = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    entries = [one for one in entries if not ast.unparse(one.annotation).startswith(("ClassVar", "typing.ClassVar"))]
    names = [(one.target.id, one) for one in entries if isinstance(one.target, ast.Name)]
    return Signature([_parameter(name, one.value, one.annotation) for name, one in names[given:]], open=False)


def _parameter(name: str, default: ast.expr | None, annotation: ast.expr | None) -> Parameter:
    return Parameter(name, default is None, ast.unparse(annotation) if annotation else "")


def files(module: str) -> list[tuple[str, Path]]:
    """The files that a part of this module is made of, each with its name from the folder of the top package.

    Of a package all of it. Of the user's own folder also those files beside it that it imports, and what they import.
    """
    top = module.partition(".")[0]
    spec = spec_of(top)
    places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    if not places or places in ([""], ["built-in"], ["frozen"]):
        return []
    root = Path(places[0]).resolve().parent
    installed = any(root.is_relative_to(folder) for folder in INSTALLED)
    found: dict[Path, None] = {}
    waiting = [Path(place) for place in places]
    while waiting:
        place = waiting.pop().resolve()
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if file not in found:
                found[file] = None
                waiting += [] if installed else _beside(file, root)
    return sorted((file.relative_to(root).as_posix(), file) for file in found)


def _beside(file: Path, root: Path) -> list[Path]:
    """What a file imports of the modules that lie in the same folder as its own top package."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    places = [place for name in names if name for place in (root / name, root / f"{name}.py")]
    return [place for place in places if place.is_file() or (place / "__init__.py").is_file()]


def digest(module: str) -> str:
    """A hash of the files of a part's module; see `files`."""
    made = hashlib.sha256()
    for name, file in files(module):
        made.update(f"{name}\0".encode())
        made.update(hashlib.sha256(file.read_bytes()).digest())
    return made.hexdigest()[:16]
