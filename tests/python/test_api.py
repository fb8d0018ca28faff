"""The built module and its stubs against tests/conformance/api.json."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kps

ROOT = Path(__file__).parents[2]
API = json.loads((ROOT / "tests/conformance/api.json").read_text())
REQUIRED = inspect.Parameter.empty
CLASSES = {entry["name"]: entry for entry in API["classes"]}
Described = tuple[str, list[tuple[str, str, Any]]]


def ours(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry.get("only", "python") == "python"]


def described(entry: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(name, kind, default) of each argument."""
    return [
        (argument["name"], kind, default(argument))
        for kind, key in (("positional", "args"), ("keyword", "options"))
        for argument in ours(entry.get(key, []))
    ]


def default(argument: dict[str, Any]) -> Any:
    value = argument.get("default", REQUIRED)
    return tuple(value) if isinstance(value, list) else value


def callables() -> Iterator[tuple[str, list[tuple[str, str, Any]], Any]]:
    """(dotted name, arguments, whether it is a coroutine function) of everything callable."""
    for function in API["functions"]:
        yield function["name"], described(function), function.get("async", False)
    for cls in API["classes"]:
        methods = ours(cls.get("methods", [])) + [
            method for key in ("static", "methods") for method in cls.get("kps", {}).get(key, [])
        ]
        for method in methods:
            is_async = method.get("async", False)
            is_async = is_async["python"] if isinstance(is_async, dict) else is_async
            yield f"{cls['name']}.{method['name']}", described(method), is_async
        if "constructor" in cls:
            yield cls["name"], described(cls["constructor"]), False


CALLABLES = [pytest.param(*entry, id=entry[0]) for entry in callables()]
PROPERTIES = [
    f"{cls['name']}.{name}"
    for cls in API["classes"]
    for name in [
        *(entry["name"] for entry in cls.get("properties", [])),
        *cls.get("protocols", {}).get("python", []),
        *cls.get("kps", {}).get("properties", []),
    ]
]


def find(name: str) -> Any:
    found: Any = kps
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("name", "arguments", "is_async"), CALLABLES)
def test_the_module_has_it_with_these_arguments(name: str, arguments: list[Any], is_async: bool) -> None:
    function = find(name)
    kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional", inspect.Parameter.KEYWORD_ONLY: "keyword"}
    seen = [
        (parameter.name, kinds[parameter.kind], freeze(parameter.default))
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls", "args", "kwargs")
    ]
    assert seen == arguments
    if inspect.isfunction(function):
        assert inspect.iscoroutinefunction(function) == is_async


def freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_module_has_the_property(name: str) -> None:
    owner, attribute = name.split(".")
    cls = getattr(kps, owner)
    fields = getattr(cls, "__dataclass_fields__", {})
    assert hasattr(cls, attribute) or attribute in fields or attribute in getattr(cls, "__annotations__", {})


@pytest.mark.parametrize("entry", API["errors"]["codes"], ids=lambda entry: entry["code"])
def test_every_error_code_has_its_class(entry: dict[str, str]) -> None:
    cls = getattr(kps, entry["python"])
    assert issubclass(cls, kps.KpsError)
    assert cls.code == entry["code"]
    if "builtin" in entry:
        assert issubclass(cls, getattr(builtins, entry["builtin"]))


def test_no_error_class_is_missing_from_the_description() -> None:
    classes = {
        name
        for name in kps.__all__
        if isinstance(getattr(kps, name), type) and issubclass(getattr(kps, name), Exception)
    }
    # Retry is not an error that kps raises: handlers do.
    known = {entry["python"] for entry in API["errors"]["codes"]} | {API["errors"]["documents"]["python"]}
    assert classes == known | {"KpsError", "Retry"}


def test_everything_public_is_described() -> None:
    """A public name that api.json does not know is a promise nobody agreed to."""
    known = {entry["name"] for entry in API["functions"] + API["classes"]}
    known |= {entry["python"] for entry in API["errors"]["codes"]} | {"KpsError", "NewServer"}
    known |= {API["errors"]["documents"]["python"]}
    known |= {name for key in ("enums", "objects") for name in API[key] if name != "about"}
    assert set(kps.__all__) <= known
    for name, cls in CLASSES.items():
        listed: set[str] = set()
        for each in (cls, CLASSES.get(cls.get("extends"), {})):
            listed |= {entry["name"] for key in ("properties", "methods") for entry in each.get(key, [])}
            for key in ("static", "methods"):
                listed |= {entry["name"] for entry in each.get("kps", {}).get(key, [])}
            listed |= set(each.get("kps", {}).get("properties", []))
        public = {
            attribute for each in own_and_shared(name) for attribute in vars(each) if not attribute.startswith("_")
        }
        assert public <= listed, name


def own_and_shared(name: str) -> Iterator[type]:
    """The class, and those that it extends and that are not public themselves."""
    for each in getattr(kps, name).__mro__:
        if each.__module__.startswith("kps") and (each.__name__ == name or each.__name__ not in CLASSES):
            yield each


# The stubs.


def stub_files() -> list[Path]:
    folder = Path(kps.__file__).parent
    return sorted(folder.glob("*.pyi")) + sorted(folder.glob("[!_]*.py")) + [folder / "__init__.py"]


def stubbed() -> dict[str, ast.AST]:
    """Every function, method and property of the package, as its types are published."""
    found: dict[str, ast.AST] = {}
    bases: dict[str, list[str]] = {}
    for file in stub_files():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, node)
                bases.setdefault(node.name, [base.id for base in node.bases if isinstance(base, ast.Name)])
                for member in node.body:
                    if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        found.setdefault(f"{node.name}.{member.name}", member)
                    elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                        found.setdefault(f"{node.name}.{member.target.id}", member)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.setdefault(node.name, node)
    for cls, base in [(cls, base) for cls, names in bases.items() for base in names]:
        for name in [name for name in found if name.startswith(f"{base}.")]:
            found.setdefault(f"{cls}.{name.removeprefix(f'{base}.')}", found[name])
    return found


STUBS = stubbed()


@pytest.mark.parametrize(("name", "arguments", "is_async"), CALLABLES)
def test_the_stubs_have_it_with_these_arguments(name: str, arguments: list[Any], is_async: bool) -> None:
    node = STUBS[f"{name}.__init__" if name in CLASSES else name]
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    positional = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
    keyword = [argument.arg for argument in node.args.kwonlyargs]
    assert positional == [argument for argument, kind, _ in arguments if kind == "positional"]
    assert keyword == [argument for argument, kind, _ in arguments if kind == "keyword"]
    required = [argument for argument, _, value in arguments if value is REQUIRED]
    optional = len(node.args.defaults) + sum(value is not None for value in node.args.kw_defaults)
    assert len(positional) + len(keyword) - optional == len(required)
    assert isinstance(node, ast.AsyncFunctionDef) == is_async


@pytest.mark.parametrize("name", [name for name in PROPERTIES if "__" not in name])
def test_the_stubs_have_the_property(name: str) -> None:
    assert name in STUBS
