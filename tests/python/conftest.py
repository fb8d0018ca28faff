from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from local_server import RUNNERS, Main, limited


@pytest.fixture(params=list(RUNNERS))
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    """Runs an async test on each kind of loop."""
    return lambda main: RUNNERS[request.param](limited(main))
