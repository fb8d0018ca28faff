"""What a Python object offers as a capability."""

from __future__ import annotations

import inspect
from typing import Any

_HOOKS = ("init", "close")


def describe(capability: Any) -> tuple[Any, list[tuple[str, bool, bool, str, Any]]]:
    """The instance, and per method: name, takes the payload, takes the context, summary, schema.

    A class is instantiated. Public methods are operations; `operations`, a dict of name to JSON Schema, describes
    their payloads.
    """
    instance = capability() if inspect.isclass(capability) else capability
    schemas = getattr(instance, "operations", None)
    schemas = schemas if isinstance(schemas, dict) else {}
    found = []
    for name in dir(instance):
        if name.startswith("_") or name in _HOOKS:
            continue
        if isinstance(inspect.getattr_static(instance, name, None), property):
            continue
        method = getattr(instance, name)
        if not inspect.isroutine(method):
            continue
        payload, context = _parameters(method)
        summary = (inspect.getdoc(method) or "").partition("\n")[0]
        found.append((name, payload, context, summary, schemas.get(name)))
    return instance, found


def _parameters(method: Any) -> tuple[bool, bool]:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return True, False
    context = any(parameter.name == "context" for parameter in parameters)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = [parameter for parameter in parameters if parameter.kind in positional and parameter.name != "context"]
    rest = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return bool(takes) or rest, context
