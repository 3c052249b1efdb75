"""Everything that tries the agent: by its rooms, as a whole, at length, and by the clock."""

import os
import sys

# What is installed has its bytecode beside it. That is the one whose start is tried and timed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
