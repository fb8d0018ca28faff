"""Checks every crate that is built against deny.toml: its licence, bans, sources; and what comes from npm into a
package or a page: its licence. Runs without installing anything.

cargo-deny checks the same file more thoroughly and takes minutes to compile; it is used where it is installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Whose packages users get: in a package or in a page.
LOCKS = ("bindings-node", "examples/canvas/page")


def main() -> int:
    text = re.sub(r"#.*", "", (ROOT / "deny.toml").read_text())
    allowed = set(re.findall(r'"([^"]+)"', re.search(r"allow = \[(.*?)\]", text, re.DOTALL)[1]))
    faults = [fault for lock in LOCKS for fault in from_npm(ROOT / lock / "package-lock.json", allowed)]
    return crates(text, allowed) or (1 if faults else 0)


def from_npm(lock: Path, allowed: set[str]) -> list[str]:
    """What is wrong with the packages of a lock file that are needed when it runs."""
    packages = json.loads(lock.read_text())["packages"]
    needed = {name: it for name, it in packages.items() if name and not (it.get("dev") or it.get("link"))}
    faults = [
        f"{name.rpartition('node_modules/')[2]} {it['version']}: licence {it.get('license')!r} is not in deny.toml"
        for name, it in needed.items()
        if not permitted(it.get("license"), allowed)
    ]
    where = lock.parent.relative_to(ROOT)
    print(*faults, f"licences: {len(needed)} npm packages of {where}, {len(faults)} faults", sep="\n")
    return faults


def crates(text: str, allowed: set[str]) -> int:
    if shutil.which("cargo-deny"):
        return subprocess.run(
            ["cargo", "deny", "check", "licenses", "bans", "sources"], cwd=ROOT, check=False
        ).returncode
    banned = set(re.findall(r'crate = "([^"]+)"', text))
    packages = metadata()
    faults = [
        fault
        for package in packages
        for fault in (
            not permitted(package["license"], allowed) and f"licence {package['license']!r} is not in deny.toml",
            package["name"] in banned and "is banned by deny.toml",
            not (package["source"] or "registry").startswith("registry") and "does not come from a registry",
        )
        if fault and not print(f"{package['name']} {package['version']}: {fault}")
    ]
    print(f"licences: {len(packages)} crates, {len(faults)} faults")
    return 1 if faults else 0


def metadata() -> list[dict[str, str]]:
    """What is built for this platform, without what only tests use."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--all-features"]
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True))[1]
    graph = json.loads(subprocess.check_output([*command, f"--filter-platform={host}"], cwd=ROOT, text=True))
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    reached, waiting = set(), list(graph["workspace_members"])
    while waiting:
        if (node := waiting.pop()) not in reached:
            reached.add(node)
            deps = nodes[node]["deps"]
            waiting += [dep["pkg"] for dep in deps if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
    return [package for package in graph["packages"] if package["id"] in reached]


def permitted(licence: str | None, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be satisfied. `/` is how older crates wrote OR."""
    words = re.findall(r"\(|\)|[^\s()]+", (licence or "").replace("/", " OR "))
    expression, term = [], []
    for word in [*words, "OR"]:
        if word in ("AND", "OR", "(", ")"):
            if term:
                expression.append(str(" ".join(term) in allowed))
            expression.append(word.lower())
            term = []
        else:
            term.append(word)
    return bool(words) and eval(" ".join(expression[:-1]))


if __name__ == "__main__":
    sys.exit(main())
