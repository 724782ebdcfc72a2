"""Agents: learners over all tasks at once; one file each. A new one needs that file and one line below."""

__all__ = ["REGISTRY"]

REGISTRY = {
    "mtsac": "mtrl.agents.mtsac:MTSAC",
}
