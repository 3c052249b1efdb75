"""What a process of ours gives up by itself, beyond what its unit takes from it."""

import ctypes
import errno
import os

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
"""SCMP_ACT_ALLOW and SCMP_ACT_ERRNO of seccomp.h."""
_START = (b"execve", b"execveat")


def start_no_program() -> None:
    """From here on this process can start none, and no thread of it that is yet to come.

    A unit cannot say so, for systemd itself has to start the process. Errors: OSError where the
    kernel or libseccomp is not there.
    """
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    refuse = ctypes.c_uint32(_ERRNO | errno.EPERM)
    for name in _START:
        number = library.seccomp_syscall_resolve_name(name)
        _checked(library.seccomp_rule_add(context, refuse, number, 0))
    _checked(library.seccomp_load(context))
    library.seccomp_release(context)


def _checked(result: int) -> None:
    if result:
        raise OSError(-result, os.strerror(-result))
