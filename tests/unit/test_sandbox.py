"""What a process gives up by itself: tried in a process that does."""

import ctypes.util
import subprocess
import sys

import pytest

TRY = """
import subprocess, threading
from agent import sandbox
subprocess.run(["true"], check=True)
sandbox.start_no_program()
def start():
    try:
        subprocess.run(["true"])
    except PermissionError:
        print("refused")
start()
thread = threading.Thread(target=start)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not ctypes.util.find_library("seccomp"), reason="no libseccomp here")
def test_it_starts_no_program_any_more() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "refused"], done.stderr
