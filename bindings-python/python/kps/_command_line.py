"""The console scripts `kps` and `kps-test`."""

import sys

from ._kps import command_line


def main() -> int:
    """`kps`."""
    return command_line(["kps", *sys.argv[1:]])


def doctor() -> int:
    """`kps-test`: `kps doctor`."""
    return command_line(["kps-test", *sys.argv[1:]])
