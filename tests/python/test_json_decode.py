"""What kps reads is what orjson reads, except that integers stay exact and 1e400 is refused."""

import json
import random
import threading
from typing import Any

import orjson
import pytest

from kps._kps import dumps, loads

VALID = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.5",
    "1e5",
    "1E+5",
    "1e-5",
    "0.1",
    "123456789012345678",
    "999999999999999999",
    "1000000000000000000",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    '""',
    '"a"',
    '"\\""',
    '"\\\\\\/\\b\\f\\n\\r\\t"',
    '"\\u00e9"',
    '"\\ud83d\\ude00"',
    '"é€😀"',
    '"é\\n"',
    '"\\u0000"',
    "[]",
    "{}",
    "[1]",
    "[1,2,[3]]",
    '{"a":1}',
    '{"a":{"b":[]}}',
    '{"a":1,"a":2}',
    '{"":1}',
    '{"\\u0061":1}',
    '{"é":1}',
    " \n\r\t[ 1 , 2 ] ",
    ' { "a" : 1 , "b" : 2 } ',
    "1e308",
    "1e-400",
    "1.7976931348623157e308",
    "0e999",
    '{"' + "k" * 47 + '":1,"' + "k" * 48 + '":2,"' + "k" * 49 + '":3}',
    '"' + "x" * 5000 + '"',
    "123.456e-7",
]

INVALID = [
    "",
    " ",
    "nul",
    "nulL",
    "tru",
    "True",
    "NaN",
    "Infinity",
    "-Infinity",
    "-",
    "+1",
    "01",
    "-01",
    "1.",
    ".5",
    "1.e5",
    "1e",
    "1e+",
    "0x1",
    "1 2",
    "1,",
    "[",
    "]",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{",
    "}",
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,',
    '{"a":1,}',
    "{a:1}",
    "{1:2}",
    '{"a" 1}',
    "{,}",
    '"',
    '"a',
    '"\\',
    '"\\x"',
    '"\\u12"',
    '"\\u12',
    '"\\u123g"',
    '"\\ud800"',
    '"\\ud800\\u0041"',
    '"\\udc00"',
    '"\\ud800x"',
    '"\n"',
    '"\t"',
    '"\x00"',
    "'a'",
    "[1]]",
    "{}{}",
    "//",
    "\ufeff1",
    '"\\u+123"',
    '{"a":1 "b":2}',
    '{"\n":1}',
]


@pytest.mark.parametrize("text", VALID, ids=lambda text: text[:30])
def test_a_text_is_read_as_orjson_reads_it(text: str) -> None:
    value, expected = loads(text.encode()), orjson.loads(text)
    assert value == expected and repr(value) == repr(expected)


@pytest.mark.parametrize("text", INVALID, ids=repr)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text)
    with pytest.raises(ValueError, match="not valid JSON at byte"):
        loads(text.encode())


@pytest.mark.parametrize(
    "text", [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xf8\x88\x80\x80\x80"', b"\xff", b'{"\x80":1}']
)
def test_invalid_utf8_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not valid JSON"):
        loads(text)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "[1e309]", '{"a":1e99999}', "1" + "0" * 400 + ".0", "1.8e308"])
def test_a_double_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        loads(text.encode())


def test_integers_stay_exact() -> None:
    for digits in range(1, 400, 7):
        number = int("9" * digits)
        assert loads(str(number).encode()) == number
        assert loads(str(-number).encode()) == -number
    with pytest.raises(ValueError, match="too many digits"):
        loads(b"9" * 5000)


def test_prefixes_and_mutations_agree_with_orjson() -> None:
    random.seed(3)
    value = [1, -2.5e-3, "x\\n\u00e9\U0001f600", {"b": None, "c": [True, False]}]
    text = json.dumps({"a": value, "long key " * 6: 10**18})
    for end in range(len(text) + 1):
        agree(text[:end].encode())
    for _ in range(30_000):
        mutated = bytearray(text.encode())
        for _ in range(random.randrange(1, 4)):
            mutated[random.randrange(len(mutated))] = random.choice(b'"\\{}[]:,0123456789eE.-+ntfu \xc3\xa9\x00')
        agree(bytes(mutated))


def agree(text: bytes) -> None:
    """orjson says what is JSON, the standard library (whose integers are exact) what it means."""
    try:
        orjson.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match="not valid JSON"):
            loads(text)
    else:
        expected = json.loads(text)
        if "inf" not in repr(expected):
            assert loads(text) == expected


def test_everything_written_can_be_read() -> None:
    value: Any = 1
    for _ in range(254):
        value = [value]
    assert loads(dumps(value)) == value


def test_deep_nesting_is_refused_without_a_crash() -> None:
    assert loads(b"[" * 1024 + b"]" * 1024)
    for text in (b"[" * 1025 + b"]" * 1025, b"[" * 1_000_000, b'{"a":' * 1_000_000):
        with pytest.raises(ValueError, match="not valid JSON"):
            loads(text)


def test_keys_are_shared_between_messages_and_never_mixed_up() -> None:
    one, two = (loads(b'{"temperature":1,"humidity":2}') for _ in range(2))
    assert all(a is b for a, b in zip(one, two, strict=True))
    for number in range(20_000):
        key = f"key {number * 7919 % 10_007}"
        assert list(loads(dumps({key: number}))) == [key]


def test_threads_decode_at_the_same_time() -> None:
    expected = {f"k{n}": [n, str(n)] for n in range(200)}
    text = dumps(expected)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                assert loads(text) == expected
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed
