"""What all tests share."""

import os
import typing

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores; read when torch is imported

# The tests check arguments at run time, and an argument can only be checked against a protocol that is "runtime
# checkable". The package never asks isinstance of one, so all of them are made so here rather than one by one there.
typing.Protocol._is_runtime_protocol = True  # pyright: ignore[reportAttributeAccessIssue]
