"""Mutations do not go stale: what each one changes is still there, once."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

RUN = runpy.run_path(str(Path(__file__).with_name("run.py")))


@pytest.mark.parametrize("mutation", RUN["MUTATIONS"], ids=lambda it: it.what)
def test_a_mutation_has_its_place(mutation: Any) -> None:
    text = (RUN["ROOT"] / mutation.file).read_text()
    assert text.count(mutation.before) == 1, f"{mutation.file} has changed: {mutation.what!r} needs another text"
