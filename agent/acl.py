"""Access lists of folders (acl(5)), by which a hook's user may write where the core does.

`gitops-agent install` has a target's folder pass them on to everything in it. Here too is how
something in it is kept from that: git does what is written in a repository's configuration.
"""

import os
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

READ, ALL = 0o5, 0o7
_HERE, _BELOW = "system.posix_acl_access", "system.posix_acl_default"
# As the kernel has it, in linux/posix_acl_xattr.h: a version, then entries in the order of these.
_VERSION, _ENTRY = 2, "<HHI"
_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF

List = dict[tuple[int, int], int]
"""What each may, by its tag and its id."""


def let_in(
    folder: Path,
    here: Mapping[int, int],
    below: Mapping[int, int],
    *,
    sticky: bool,
    dry: bool = False,
) -> bool:
    """Let each uid do in `folder`, and in all that comes into it, what these say.

    `sticky` keeps what is in it from everybody but its owner and the folder's. Gives whether that
    is anything new; with `dry` it is left at that. OSError where the file system has no lists.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    of_mode = {(_OWNER, _NO_ID): mode >> 6 & 7, (_GROUP, _NO_ID): mode >> 3 & 7,
               (_OTHER, _NO_ID): mode & 7}  # fmt: skip
    # Below it is as the core's umask would have it.
    private = {(_OWNER, _NO_ID): ALL, (_GROUP, _NO_ID): READ, (_OTHER, _NO_ID): 0}
    new = sticky and not mode & stat.S_ISVTX
    if new and not dry:
        folder.chmod(mode | stat.S_ISVTX)
    for name, users, base in ((_HERE, here, of_mode), (_BELOW, below, private)):
        found = _read(folder, name)
        wanted = _with(found or base, users)
        if wanted != found:
            new = True
            if not dry:
                os.setxattr(folder, name, _packed(wanted))
    return new


def _with(entries: List, users: Mapping[int, int]) -> List:
    """Those entries, and these users' too; the mask as wide as all of them need it."""
    all_of_them = entries | {(_USER, uid): may for uid, may in users.items()}
    mask = 0
    for (tag, _), may in all_of_them.items():
        mask |= may if tag in (_USER, _GROUP, _NAMED_GROUP) else 0
    return all_of_them | {(_MASK, _NO_ID): mask}


def _read(folder: Path, name: str) -> List:
    """The list that is there; an empty one where there is none."""
    try:
        packed = os.getxattr(folder, name)
    except OSError:
        return {}
    return {(tag, who): may for tag, may, who in struct.iter_unpack(_ENTRY, packed[4:])}


def _packed(entries: List) -> bytes:
    parts = [struct.pack(_ENTRY, tag, may, who) for (tag, who), may in sorted(entries.items())]
    return struct.pack("<I", _VERSION) + b"".join(parts)


def has_list(path: Path) -> bool:
    """Whether more may be done with it than its mode says."""
    return bool(_read(path, _HERE))


def keep_to_owner(folder: Path) -> None:
    """Have only its owner write in `folder`, still empty, and in all that will come into it."""
    for name in (_HERE, _BELOW):
        with suppress(OSError):
            os.removexattr(folder, name)
    folder.chmod(0o755)


def make_folder(folder: Path) -> None:
    """A folder in which only its owner makes, renames and removes; what is in it passes on more.

    One that is there already stays as it is.
    """
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o755)
