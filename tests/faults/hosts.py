"""Two hosts with a cable between them: network namespaces of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

HOW_TO = "these tests make network namespaces: run them as root, with `ip` (Debian's package iproute2)"

HERE, THERE = "10.213.7.1", "10.213.7.2"
"""Only these two hosts know these addresses."""


class Hosts:
    """`here` and `there`; each is what to put in front of a command."""

    def __init__(self, name: str) -> None:
        self.names = (f"{name}a", f"{name}b")
        """Each host is called like its end of the cable."""
        self.here, self.there = (("ip", "netns", "exec", host) for host in self.names)

    def connect(self) -> None:
        for host in self.names:
            ip("netns", "add", host)
        here, there = self.names
        ip("link", "add", here, "netns", here, "type", "veth", "peer", "name", there, "netns", there)
        for host, address in zip(self.names, (HERE, THERE), strict=True):
            ip("-n", host, "address", "add", f"{address}/30", "dev", host)
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", host, "up")

    def unplug(self, end: int) -> None:
        """Takes the link down at that end."""
        ip("-n", self.names[end], "link", "set", self.names[end], "down")

    def plug(self, end: int) -> None:
        ip("-n", self.names[end], "link", "set", self.names[end], "up")

    def remove(self) -> None:
        for host in self.names:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)  # with its end of the cable


@contextmanager
def two_hosts(number: int = 0) -> Iterator[Hosts]:
    assert shutil.which("ip") and os.geteuid() == 0, HOW_TO
    hosts = Hosts(f"kps{os.getpid()}-{number}")
    try:
        try:
            hosts.connect()
        except PermissionError as refused:
            raise AssertionError(f"{HOW_TO} ({refused})") from None
        yield hosts
    finally:
        hosts.remove()


def ip(*command: str) -> None:
    done = subprocess.run(["ip", *command], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise PermissionError(done.stderr.strip())
