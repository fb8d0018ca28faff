"""How long the fault tests run, with which random numbers, and what they did."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

SOAK = int(os.environ.get("KPS_ROUNDS", "0"))
"""Rounds of the long form; 0: the short form."""

SEED = int(os.environ.get("KPS_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)

CHAPTER = 10
"""Rounds on one data folder."""

ROUNDS = SOAK or CHAPTER
CHAPTERS = range((ROUNDS + CHAPTER - 1) // CHAPTER)

figures: dict[str, Counter[str]] = {}
"""What was done, by suite; printed when the tests are over."""


def count(suite: str, **what: int) -> None:
    figures.setdefault(suite, Counter()).update({name.replace("_", " "): number for name, number in what.items()})


@contextmanager
def chance(*names: object) -> Iterator[random.Random]:
    """Random numbers that depend on the seed and `names`; a failure says how to have them again."""
    try:
        yield random.Random(f"{SEED} {names}")
    except BaseException:
        print(f"\nrun it again with KPS_SEED={SEED}" + (f" KPS_ROUNDS={SOAK}" if SOAK else ""))
        raise
