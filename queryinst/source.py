"""Where the source of a part lies, what its constructor takes, and which files it is made of: read, never imported.

A part's module may import torch, or run for seconds, or have been named by somebody else's file. So everything that can
be known of it without running it comes from here.
"""

import ast
import builtins
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
INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib"))
DEPTH = 8  # of names that lead to other names


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
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        # By its last name: of a whole one, a folder without __init__.py asks the packages above it, which must not run.
        spec = importlib.machinery.PathFinder.find_spec(part, list(spec.submodule_search_locations))
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


def definition(module: str, name: str, where: str, depth: int = DEPTH) -> tuple[str, Definition] | None:
    """The class or function `name`, and the module that defines it, through `from x import y`; None where reading the
    source cannot tell.

    Raises:
        UserError: there is no such module, its source is no Python, or it has no such name.
    """
    file = require_module(module, where)
    if file is None or depth == 0:
        return None
    text = file.read_bytes()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{where}: {file}{line} is no Python: {error.args[0]}") from None
    known: set[str] = set()
    for node, tried in _statements(tree.body):
        if isinstance(node, Definition):
            known.add(node.name)
            if node.name == name:
                return module, node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known.add(alias.asname or alias.name)
                origin = _absolute(node, module, file)
                if (alias.asname or alias.name) == name and not (tried and spec_of(origin) is None):
                    return definition(origin, alias.name, where, depth - 1)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Import):
            known |= _bound(node)
    dynamic = {"*", "__getattr__"} & known or b"globals()" in text
    if name not in known and not dynamic:
        raise UserError(f"{where}: {file} has no class '{name}'{nearest(name, known)}")
    return None


def _statements(body: Sequence[ast.stmt], tried: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Those of a module, also inside `if` and `try`; and whether they are inside a `try`, where an import may fail."""
    for node in body:
        yield node, tried
        if isinstance(node, ast.If | ast.Try | ast.With):
            inner = tried or isinstance(node, ast.Try)
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, field, []), inner)
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body, inner)


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


def signature(module: str, name: str, given: int, where: str, depth: int = DEPTH) -> Signature | None:
    """What `module:name` takes by name, after `given` arguments by position; None where reading cannot tell.

    Raises:
        UserError: as `definition`.
    """
    found = definition(module, name, where)
    if found is None or depth == 0:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):  # one that is inherited from, as NamedTuple, is something else
        return None if node.decorator_list or depth < DEPTH else _signature(node.args, given)
    methods = {entry.name: entry for entry in node.body if isinstance(entry, ast.FunctionDef)}
    if made := methods.get("__init__"):
        return None if made.decorator_list else _signature(made.args, given + 1)
    if "__new__" in methods:
        return None
    if node.decorator_list or node.keywords:  # a dataclass, a metaclass
        return _fields(node, given)
    bases = [base for base in node.bases if ast.unparse(base).rpartition(".")[2] not in ("Protocol", "object", "ABC")]
    if not bases:
        return Signature([], open=False)
    if len(bases) == 1 and isinstance(bases[0], ast.Name) and not hasattr(builtins, bases[0].id):
        return signature(module, bases[0].id, given, where, depth - 1)
    return None


def _signature(arguments: ast.arguments, given: int) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    named = [*zip(positional, defaults, strict=True)][max(given, len(arguments.posonlyargs)) :]
    named += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return Signature([_parameter(one.arg, value, one.annotation) for one, value in named], arguments.kwarg is not None)


def _fields(node: ast.ClassDef, given: int) -> Signature | None:
    """Of a plain dataclass without a base."""
    if node.bases or len(node.decorator_list) != 1 or _last_name(node.decorator_list[0]) != "dataclass":
        return None
    if {"init", "kw_only"} & set(_keywords(node.decorator_list[0])):
        return None
    entries = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    kinds = [ast.unparse(one.annotation).strip("'\"").partition("[")[0].rpartition(".")[2] for one in entries]
    if "KW_ONLY" in kinds:
        return None
    made: list[Parameter] = []
    named: list[Parameter] = []
    for one, kind in zip(entries, kinds, strict=True):
        options = _keywords(one.value) if one.value and _last_name(one.value) == "field" else None
        if kind == "ClassVar" or (options and ast.unparse(options.get("init", ast.Constant(True))) == "False"):
            continue
        required = one.value is None if options is None else not {"default", "default_factory"} & set(options)
        parameter = Parameter(ast.unparse(one.target), required, ast.unparse(one.annotation))
        (named if options and "kw_only" in options else made).append(parameter)
    return Signature([*made[given:], *named], open=False)


def _last_name(node: ast.expr) -> str:
    """`field` of `dataclasses.field(...)`."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def _keywords(node: ast.expr) -> dict[str, ast.expr]:
    return {one.arg or "": one.value for one in node.keywords} if isinstance(node, ast.Call) else {}


def _parameter(name: str, default: ast.expr | None, annotation: ast.expr | None) -> Parameter:
    return Parameter(name, default is None, ast.unparse(annotation) if annotation else "")


def files(module: str) -> list[tuple[str, Path]]:
    """The files that a part of this module is made of, each with its name from the folder of the top package.

    Of a package all of it. Of the user's own folder also those files beside it that it imports, and what they import.
    """
    found: dict[str, Path] = {}
    waiting = _places(module.partition(".")[0])
    while waiting:
        place = waiting.pop(0)
        installed = any(place.resolve().is_relative_to(folder) for folder in INSTALLED)
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = file.relative_to(place.parent).as_posix()
            if name not in found:
                found[name] = file
                waiting += [] if installed else _beside(file, place.parent)
    return sorted(found.items())


def _places(top: str) -> list[Path]:
    """The folders of a package, or the file of a module; none of one that is part of Python itself."""
    spec = spec_of(top)
    if spec is None or spec.origin in ("built-in", "frozen"):
        return []
    places = spec.submodule_search_locations or [spec.origin or ""]
    return [Path(place).absolute() for place in places if place]


def _beside(file: Path, root: Path) -> list[Path]:
    """What a file imports of the modules that lie in the same folder as its own top package."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0]: None for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names[node.module.partition(".")[0]] = None
    return [place for name in names for place in _places(name) if place.parent == root]


def digest(module: str) -> str:
    """A hash of the files of a part's module; see `files`."""
    made = hashlib.sha256()
    for name, file in files(module):
        made.update(f"{name}\0".encode())
        made.update(hashlib.sha256(file.read_bytes()).digest())
    return made.hexdigest()[:16]
