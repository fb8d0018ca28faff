"""What the storage benchmarks save: a JSON object of 1 KB, of the size and shape of what programs keep."""

from payload import PAYLOAD


def document(number):
    """1,024 bytes as compact JSON, for numbers of up to seven digits."""
    return {
        "id": 1_000_000 + number,
        "name": "Ada Lovelace",
        "mail": "ada@example.org",
        "verified": True,
        "note": "n" * 281,
        "orders": [{**PAYLOAD, "n": PAYLOAD["n"] + order} for order in range(5)],
    }
