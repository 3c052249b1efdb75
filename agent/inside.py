"""Writes and deletes inside one tree, and never through a link.

Every folder on the way is opened from its parent without following links (openat(2) with
O_NOFOLLOW), so that a link in a repository, or one that a hook left, leads nothing out of the tree.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1024 * 1024


class Inside:
    """The tree at `root`, which must be a folder and no link. Paths are relative, in bytes.

    Calls that go through the tree in the order of their paths open each folder once. OSError
    where something is in the way, or a folder on the way is a link (ENOTDIR or ELOOP).
    """

    def __init__(self, root: Path) -> None:
        self._names: list[bytes] = []
        self._fds = [os.open(root, _FOLDER)]

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(0)
        os.close(self._fds.pop())

    def write(self, path: bytes, mode: int, size: int, content: IO[bytes]) -> None:
        """Make `path` a file with the next `size` bytes of `content`, at once or not at all."""
        folder, name = self._enter(path)
        with _beside(folder, name) as beside:
            file = os.open(beside, _NEW_FILE, mode, dir_fd=folder)
            with os.fdopen(file, "wb") as out:
                _copy(content, size, out)

    def link(self, path: bytes, to: bytes) -> None:
        """Make `path` a symbolic link that says `to`, at once."""
        folder, name = self._enter(path)
        with _beside(folder, name) as beside:
            os.symlink(to, beside, dir_fd=folder)

    def folder(self, path: bytes) -> None:
        """Have a folder at `path`; one that is there stays as it is."""
        self._enter(path + b"/")

    def mode(self, path: bytes) -> int | None:
        """What is at `path` (stat(2), st_mode), a link as a link; None where nothing can be."""
        try:
            folder, name = self._enter(path, make=False)
            return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    def remove(self, path: bytes) -> None:
        """Remove what is at `path`, a folder with all that is in it, and folders left empty."""
        with suppress(FileNotFoundError):
            folder, name = self._enter(path, make=False)
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                # rmtree goes by descriptors too, and follows no link (shutil's documentation).
                shutil.rmtree(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
            self._remove_empty()

    def move(self, path: bytes, other: "Inside") -> None:
        """Move what is at `path` to the same path in another tree, on the same file system."""
        folder, name = self._enter(path, make=False)
        there, _ = other._enter(path)
        os.rename(name, name, src_dir_fd=folder, dst_dir_fd=there)

    def clear(self, known: Mapping[bytes, Set[bytes]], whole: Set[bytes]) -> None:
        """Remove all but the names that are `known` in each folder, and what is in `whole`.

        What git's own clean leaves alone goes too: any .git, sockets, pipes.
        """
        self._leave(0)
        folders = {path for one in whole for path in _above(one)}
        self._clear(b"", known, whole, folders)

    def _clear(
        self,
        folder: bytes,
        known: Mapping[bytes, Set[bytes]],
        whole: Set[bytes],
        above: Set[bytes],
    ) -> None:
        here, names = self._fds[-1], known.get(folder, frozenset())
        with os.scandir(here) as entries:
            found = [(os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in entries]
        for name, is_folder in found:
            path = folder + b"/" + name if folder else name
            if path in whole:
                continue
            if is_folder and (path in known or path in above):
                self._enter(path + b"/", make=False)
                self._clear(path, known, whole, above)
                self._leave(len(self._names) - 1)
            elif is_folder:
                shutil.rmtree(name, dir_fd=here)
            elif name not in names or path in known:
                os.unlink(name, dir_fd=here)

    def _remove_empty(self) -> None:
        with suppress(OSError):
            while self._names:
                name = self._names[-1]
                self._leave(len(self._names) - 1)
                os.rmdir(name, dir_fd=self._fds[-1])

    def _enter(self, path: bytes, *, make: bool = True) -> tuple[int, bytes]:
        """The folder of `path`, made where it is missing, and the last part of the path."""
        *folders, name = path.split(b"/")
        shared = 0
        while shared < min(len(folders), len(self._names)) and (
            folders[shared] == self._names[shared]
        ):
            shared += 1
        self._leave(shared)
        for part in folders[shared:]:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=self._fds[-1])
            self._fds.append(os.open(part, _FOLDER, dir_fd=self._fds[-1]))
            self._names.append(part)
        return self._fds[-1], name

    def _leave(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._fds.pop())


def _above(path: bytes) -> Iterator[bytes]:
    """The folders in which `path` is."""
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


@contextmanager
def _beside(folder: int, name: bytes) -> Iterator[bytes]:
    """A name for something new, which then takes the place of `name` in one rename."""
    beside = b".%s-%s" % (name[:64], secrets.token_hex(4).encode())
    try:
        yield beside
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        # Whatever ended it, a cancel too, leaves nothing half written in the tree.
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise


def _copy(content: IO[bytes], size: int, out: IO[bytes]) -> None:
    while size:
        chunk = content.read(min(size, _CHUNK))
        if not chunk:
            raise OSError("the content ended early")
        out.write(chunk)
        size -= len(chunk)
