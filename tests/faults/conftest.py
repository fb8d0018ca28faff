from __future__ import annotations

from typing import Any

from rounds import figures


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for suite, counted in figures.items():
        terminalreporter.write_line(f"{suite}: " + ", ".join(f"{number} {name}" for name, number in counted.items()))
