"""What kps writes is what orjson writes, byte for byte; what orjson refuses is refused."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import random
import struct
import sys
import uuid
import zoneinfo
from typing import Any, NamedTuple

import orjson
import pytest

from kps._kps import dumps


def same(value: Any) -> None:
    assert dumps(value) == orjson.dumps(value)


def refused(value: Any) -> None:
    with pytest.raises(TypeError):
        orjson.dumps(value)
    with pytest.raises(TypeError, match=r"^data: "):
        dumps(value)


class Str(str): ...


class Int(int): ...


class Float(float): ...


class List(list): ...


class Dict(dict): ...


class Tuple(tuple): ...


class Bytes(bytes): ...


class DateTime(dt.datetime): ...


class Date(dt.date): ...


class Uuid(uuid.UUID): ...


class Colour(enum.Enum):
    RED = "red"
    MANY = (1, 2)


class Named(str, enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Bits(enum.IntFlag):
    X = 1
    Y = 2


class Nested(enum.Enum):
    OTHER = Colour.RED


class Plain: ...


class Point(NamedTuple):
    x: int
    y: int


class Rejected(enum.Enum):
    SET = frozenset({1})


@dataclasses.dataclass
class Data:
    a: int
    b: Any = None
    _hidden: int = 1
    c: str = dataclasses.field(default="c", repr=False)
    kind: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Slots:
    __slots__ = ("_c", "a", "b")
    a: int
    b: list
    _c: int


@dataclasses.dataclass
class WithClassVar:
    x: int
    shared: "dataclasses.ClassVar[int]" = 3


class Derived(Data): ...


@dataclasses.dataclass
class DerivedToo(Data):
    d: float = 0.5


EXTENDED = Data(1, [2])
EXTENDED.later = "added"

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1 << 31,
    -(1 << 31),
    (1 << 53) + 1,
    (1 << 63) - 1,
    -(1 << 63),
    1 << 63,
    (1 << 64) - 1,
    0.0,
    -0.0,
    1.0,
    -1.5,
    0.1,
    1e16,
    1e15,
    123456789012345680.0,
    1e-5,
    1e-7,
    5e-324,
    sys.float_info.max,
    sys.float_info.min,
    math.nan,
    math.inf,
    -math.inf,
    1e22,
    1e21,
    100.0,
    "",
    "é",
    "\u20ac",
    "😀",
    "\x00\x1f\x7f\x80",
    'quote " slash \\ / \b\f\n\r\t',
    "x" * 1000,
    "é" * 1000,
    [],
    {},
    (),
    [[]],
    {"": {}},
    [1, "a", None],
    (1, (2,)),
    {"a": [1, {"b": ()}]},
    {"é": 1, "\n": 2},
    Str("x"),
    Int(5),
    Int(1 << 63),
    List([1]),
    Dict(a=1),
    collections.OrderedDict(b=1, a=2),
    collections.defaultdict(int, a=1),
    collections.Counter("aab"),
    Colour.RED,
    Colour.MANY,
    Named.A,
    Number.ONE,
    Bits.X | Bits.Y,
    Nested.OTHER,
    {"k": Colour.RED},
    uuid.UUID(int=0),
    uuid.UUID(int=(1 << 128) - 1),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    dt.datetime(2024, 2, 29, 1, 2, 3),
    dt.datetime(1, 1, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2024, 1, 1, 0, 0, 0, 1),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    dt.datetime(2024, 1, 1, 0, 0, 0, 500000, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))),
    dt.date(2024, 2, 29),
    dt.date(1, 1, 1),
    dt.time(1, 2, 3),
    dt.time(1, 2, 3, 45),
    dt.time(),
    Data(1),
    Data(1, {"x": Data(2, (3,))}),
    EXTENDED,
    Slots(1, [2], 3),
    WithClassVar(1),
    DerivedToo(1),
    {"a": Data(1), "b": [Named.A, uuid.UUID(int=7)]},
]

REFUSED = [
    1 << 64,
    -(1 << 63) - 1,
    1 << 200,
    Int(1 << 64),
    {1, 2},
    frozenset(),
    b"x",
    bytearray(b"x"),
    memoryview(b"x"),
    Bytes(b""),
    decimal.Decimal("1.5"),
    dt.timedelta(1),
    1j,
    object(),
    Plain(),
    Plain,
    int,
    len,
    ...,
    range(3),
    Float(1.5),
    Tuple((1,)),
    Point(1, 2),
    DateTime(2024, 1, 1),
    Date(2024, 1, 1),
    Uuid(int=1),
    dt.time(1, tzinfo=dt.timezone.utc),
    dt.timezone.utc,
    "\ud800",
    "a\udfffb",
    {"\udc00": 1},
    {1: 2},
    {None: 1},
    {True: 1},
    {b"a": 1},
    {Str("x"): 1},
    {Named.A: 1},
    {("a",): 1},
    Derived(1),
    Rejected.SET,
    [1, {2}],
    {"a": {"b": object()}},
    collections.deque([1]),
    (x for x in ()),
    Exception("x"),
    Data(1, {1}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_is_written_as_orjson_writes_it(value: Any) -> None:
    same(value)
    same([value, value])
    same({"key": value})


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: repr(value)[:40])
def test_what_orjson_refuses_is_refused(value: Any) -> None:
    refused(value)
    refused([0, value])
    refused({"key": value})


@pytest.mark.parametrize("zone", ["Europe/Amsterdam", "America/St_Johns", "Asia/Kathmandu", "Africa/Monrovia"])
@pytest.mark.parametrize("year", [1900, 1930, 1950, 1972, 2024])
def test_zones_with_odd_offsets(zone: str, year: int) -> None:
    pytest.importorskip("tzdata", reason="pip install tzdata") if not zoneinfo.available_timezones() else None
    for month in range(1, 13):
        same(dt.datetime(year, month, 1, 12, tzinfo=zoneinfo.ZoneInfo(zone)))


@pytest.mark.parametrize("seconds", [1, 29, 30, 31, 59, -1, -29, -30, -31, -59, 3600 - 1, -3600 - 31])
def test_offsets_with_seconds_are_rounded(seconds: int) -> None:
    same(dt.datetime(2000, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=seconds))))


def test_every_code_point() -> None:
    for start in range(0, 0x110000, 0x1000):
        points = [chr(point) for point in range(start, start + 0x1000) if not 0xD800 <= point < 0xE000]
        if points:
            same(points)
            same("".join(points))


def test_every_byte_at_every_offset_of_a_word() -> None:
    for offset in range(20):
        for byte in range(128):
            same("a" * offset + chr(byte) + "b" * (20 - offset))
            same("é" * offset + chr(byte) * 2)


def test_random_doubles() -> None:
    random.seed(7)
    for _ in range(100):
        bits = [struct.unpack("<d", random.randbytes(8))[0] for _ in range(2000)]
        same([value for value in bits if not math.isnan(value)])
        same([random.uniform(-1000, 1000) for _ in range(1000)])
        same([round(random.uniform(-1000, 1000), random.randrange(6)) for _ in range(1000)])
        same([float(random.getrandbits(60)) for _ in range(1000)])


def test_powers_of_ten_and_two() -> None:
    same([float(f"{digit}e{power}") for power in range(-324, 309) for digit in (1, 9.5)])
    same([2.0**power for power in range(-1074, 1024)])
    same([n for power in range(64) for n in (2**power - 1, -(2**power - 1), 2**power)])


def test_random_structures() -> None:
    random.seed(11)

    def value(depth: int) -> Any:
        kind = random.randrange(9 if depth else 6)
        if kind == 0:
            return random.getrandbits(random.randrange(1, 64)) * random.choice((1, -1))
        if kind == 1:
            return random.uniform(-1e9, 1e9)
        if kind == 2:
            return "".join(chr(random.choice((random.randrange(128), random.randrange(0xD800)))) for _ in range(9))
        if kind <= 5:
            return random.choice((None, True, False, ""))
        items = [value(depth - 1) for _ in range(random.randrange(6))]
        if kind == 6:
            return items
        if kind == 7:
            return tuple(items)
        return {str(value(0)): item for item in items}

    for _ in range(3000):
        same(value(5))


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: Data(1, v)])
def test_nesting_is_refused_where_orjson_refuses_it(wrap: Any) -> None:
    value: Any = None
    for depth in range(1, 300):
        value = wrap(value)
        try:
            expected = orjson.dumps(value)
        except TypeError:
            refused(value)
            assert depth > 200
        else:
            assert dumps(value) == expected
    itself: list[Any] = []
    itself.append(itself)
    refused(itself)


def test_deep_tuples_are_refused_too() -> None:
    """orjson follows tuples until the stack overflows."""
    value: Any = None
    for _ in range(100_000):
        value = (value,)
    with pytest.raises(TypeError, match="deeper"):
        dumps(value)
    while value:
        (value,) = value


def test_code_that_changes_the_container_while_it_is_written() -> None:
    """No crash; what is written then is nobody's promise."""

    class Clearing(dt.tzinfo):
        def utcoffset(self, _: Any) -> dt.timedelta:
            items.clear()
            pairs.clear()
            return dt.timedelta(0)

        def dst(self, _: Any) -> None: ...
        def tzname(self, _: Any) -> None: ...

    for _ in range(100):
        moment = dt.datetime(2024, 1, 1, tzinfo=Clearing())
        items: list[Any] = [moment, ["x"] * 3, moment]
        pairs: dict[str, Any] = {"a" * 99: moment, "b" * 99: items}
        dumps(pairs)
        pairs = {str(n) * 9: [moment] for n in range(9)}
        dumps(pairs)


def test_what_the_objects_own_code_raises_is_the_cause() -> None:
    class Broken(dt.tzinfo):
        def utcoffset(self, _: Any) -> dt.timedelta:
            raise RuntimeError("no idea")

    with pytest.raises(TypeError, match=r"^data: ") as caught:
        dumps(dt.datetime(2024, 1, 1, tzinfo=Broken()))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_object_whose_code_encodes_too() -> None:
    class Inner(dt.tzinfo):
        def utcoffset(self, _: Any) -> dt.timedelta:
            assert dumps({"inner": [1] * 100}) == orjson.dumps({"inner": [1] * 100})
            return dt.timedelta(0)

    moment = dt.datetime(2024, 1, 1, tzinfo=Inner())
    assert dumps(["before", moment, "after"]) == b'["before","2024-01-01T00:00:00+00:00","after"]'
