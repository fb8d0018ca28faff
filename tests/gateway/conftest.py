from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from over_http import serving


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def web(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as web:
        yield web
