"""What has to be on the disk before it is said to be there."""

import ctypes
import os
from pathlib import Path


def write_out(tree: Path) -> None:
    """Have all of the tree on its disk, also what hooks wrote in it (syncfs(2)). OSError."""
    folder = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(folder):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(tree))
    finally:
        os.close(folder)


def write_out_folder(path: Path) -> None:
    """Have the names in a folder on its disk. OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
