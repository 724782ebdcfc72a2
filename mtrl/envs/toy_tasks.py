"""The task names of the toy suites, known to the command line without importing anything."""

TASKS = ("reach-east", "reach-north", "reach-west", "reach-south")

GROUP_TASKS = (
    "straight-left",
    "straight-middle",
    "straight-right",
    "mirrored-left",
    "mirrored-middle",
    "mirrored-right",
)

NUM_GOALS = 50
"""Goals per task."""
