"""Whether values are what cases expect."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import kps

FORMATS = {"f64": "d", "i64": "q", "i32": "i", "u8": "B"}
MISSING = object()


def number_format(name: str) -> Any:
    """The letter that Python has for a type of numbers."""
    return FORMATS[name]


def ramp(length: int) -> bytes:
    """So many bytes: 0 to 250, again and again."""
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def decode(value: Any) -> Any:
    if isinstance(value, dict) and "$bytes" in value:
        return base64.b64decode(value["$bytes"])
    if isinstance(value, dict) and "$ramp" in value:
        return ramp(value["$ramp"])
    if isinstance(value, dict) and "$repeat" in value:
        return value["$repeat"][0] * value["$repeat"][1]
    if isinstance(value, dict) and "$int" in value:
        return int(value["$int"])
    return value


def expect(expected: Any, actual: Any) -> None:
    assert matches(expected, actual), f"{actual!r} is not {expected!r}"


def matches(expected: Any, actual: Any) -> bool:
    if isinstance(actual, kps.KpsError) and isinstance(expected, str):
        return actual.code == expected
    if isinstance(expected, dict) and (mark := next(iter(expected), "")) in MARKS:
        return MARKS[mark](expected[mark], actual)
    expected = decode(expected)
    if isinstance(expected, dict):
        if actual is None or actual is MISSING:
            return False
        return all(matches(wanted, field(actual, name)) for name, wanted in expected.items())
    if isinstance(expected, list) and isinstance(actual, (list, tuple)):
        return len(expected) == len(actual) and all(map(matches, expected, actual))
    return bool(expected == actual and isinstance(expected, bool) == isinstance(actual, bool))


def same_array(expected: Any, actual: Any) -> bool:
    if not isinstance(actual, memoryview) or actual.format != number_format(expected["type"]):
        return False
    code = number_format(expected["type"])
    flat = actual.cast("B").cast(code).tolist() if actual.nbytes else []
    return actual.shape == tuple(expected["shape"]) and bool(flat == expected["numbers"])


MARKS: dict[str, Callable[[Any, Any], bool]] = {
    "$any": lambda _, actual: actual is not MISSING,
    "$not": lambda expected, actual: not matches(expected, actual),
    "$all": lambda expected, actual: all(matches(each, actual) for each in expected),
    "$some": lambda expected, actual: isinstance(actual, list) and any(matches(expected, each) for each in actual),
    "$contains": lambda expected, actual: isinstance(actual, str) and expected in actual,
    "$array": same_array,
    "$as_is": lambda expected, actual: bool(expected == actual),
}


def field(actual: Any, name: str) -> Any:
    if isinstance(actual, dict):
        return actual.get(name, MISSING)
    return getattr(actual, name, MISSING)
