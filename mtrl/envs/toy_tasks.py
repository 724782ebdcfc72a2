"""The task names of the toy suites, known to the command line without importing anything."""

TASKS = ("reach-east", "reach-north", "reach-west", "reach-south")

NUM_GOALS = 50
"""Goals per task."""
