"""Writes the vectors under tests/conformance/wire as seeds: seeds.py FOLDER"""

import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
vectors = pathlib.Path(__file__).parents[3] / "tests" / "conformance" / "wire"
for file in vectors.glob("*.json"):
    for number, case in enumerate(json.loads(file.read_text("utf-8"))):
        (folder / f"{file.stem}-{number}").write_bytes(bytes.fromhex(case["hex"]))
