"""The tasks of the compute benchmarks as a program writes them in Python; workers import this module."""

import hashlib

# The largest prime below 2⁵¹².
PRIME = 2**512 - 569
BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
BYTES = bytes(range(256)) * 1024
ITEMS = 100

# What each of 100 tasks is given, and the answer to check.
GIVEN = {
    "fibonacci": 20,
    "is_prime": PRIME,
    "hash_sha256": BYTES,
    "add": {"a": 1, "b": 2},
    "spin": {"turns": 80_000},
}


def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def is_prime(n):
    """Miller and Rabin's test with twelve bases: what most programs do."""
    if any(n % base == 0 for base in BASES):
        return n in BASES
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in BASES:
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def hash_sha256(data):
    return hashlib.sha256(data).hexdigest()


def add(data):
    return data["a"] + data["b"]


def spin(data):
    """Some 5 ms of work that holds the GIL."""
    total = 0
    for turn in range(data["turns"]):
        total += turn * turn % 7
    return total


FUNCTIONS = {each.__name__: each for each in (fibonacci, is_prime, hash_sha256, add, spin)}
OWN = ("add", "spin")
