"""Disks that are full, and folders that may not be written."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

Kind = Literal["files may not grow", "a small disk"]

ROOM = 1 << 20
"""Bytes there are at first."""


class Disk:
    """A folder with little room until it gets some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def limit(self) -> Callable[[], None] | None:
        """What a process that uses it does before it starts."""
        return None

    def fill(self) -> None:
        """Leaves no room at all."""
        raise NotImplementedError

    def make_room(self) -> None:
        raise NotImplementedError


class Limited(Disk):
    """Its files have a largest size: that needs no rights and is the same everywhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir()
        self.size = ROOM

    def limit(self) -> Callable[[], None] | None:
        size = self.size

        def set_limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error, not the end of the process
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        return set_limit if size else None

    def fill(self) -> None:
        self.size = 4096

    def make_room(self) -> None:
        self.size = 0


class Small(Disk):
    """A file system of its own in memory."""

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (65536, 4096):  # what does not fit as a whole may fit in part
                try:
                    while filler.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def make_room(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)
        run("mount", "-o", "remount,size=64m", str(self.folder))


@contextmanager
def disk(kind: Kind, folder: Path) -> Iterator[Disk]:
    if kind == "files may not grow":
        yield Limited(folder)
        return
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs"):
        yield Small(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write to it, root neither."""
    with mounted(folder, "--bind", str(folder)):
        run("mount", "-o", "remount,bind,ro", str(folder))
        yield


@contextmanager
def mounted(folder: Path, *what: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    try:
        run("mount", *what, str(folder))
    except PermissionError as refused:
        pytest.skip(f"mounting is not allowed here: {refused}")
    try:
        yield
    finally:
        run("umount", "--lazy", str(folder))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise PermissionError(done.stderr.strip())
