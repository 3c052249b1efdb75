"""What this process leaves its children: of its environment, and of its standard streams.

GitPython gives git all of it, and starts one git when it is imported: scrub before that.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# What git itself may need; anything else stays out.
PASSED_ON = frozenset(
    (
        "PATH",
        "HOME",
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
    )
)
# What this process may still need: how its terminal is, and where there is room.
_OWN = frozenset(
    (
        *("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
        *("LANG", "LC_ALL", "TZ", "TMPDIR"),
        # What a shell asks click's completion by.
        *("_GITOPS_AGENT_COMPLETE", "COMP_WORDS", "COMP_CWORD"),
    )
)


def scrub() -> None:
    """Leave in the environment only what a child may inherit."""
    for name in set(os.environ) - PASSED_ON - _OWN:
        del os.environ[name]
    # Where there is no git, who needs one says so, rather than who is imported.
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"


def open_streams() -> None:
    """Have the standard streams open, though they lead nowhere.

    Of one that was closed at the start, the next file that is opened would get the number, and
    with it whatever some child or library writes there.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


@contextmanager
def showing(environ: Mapping[str, str], prefix: str) -> Iterator[None]:
    """Have those of `environ` that begin with `prefix` back, for a library that reads them."""
    shown = {name: text for name, text in environ.items() if name.startswith(prefix)}
    hidden = shown.keys() - os.environ.keys()
    os.environ.update(shown)
    try:
        yield
    finally:
        for name in hidden:
            del os.environ[name]
