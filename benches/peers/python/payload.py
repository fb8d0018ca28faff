"""What every message carries."""

# 128 bytes as compact JSON; `n` keeps its seven digits and shows losses and reordering.
PAYLOAD = {
    "n": 1_000_000,
    "sensor": "house-17",
    "zone": "bed-3",
    "at": 1763690000,
    "celsius": 21.375,
    "humidity": 0.625,
    "battery": 98,
    "tags": ["a", "b"],
}
FIRST = PAYLOAD["n"]
