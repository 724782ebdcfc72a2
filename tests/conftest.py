"""What all tests share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores; read when torch is imported
