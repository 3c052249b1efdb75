"""The newcomer's page, as commands and files."""

import re

from tests.systemd.machine import CHECKOUT

_PAGE = CHECKOUT / "docs" / "install.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The page's blocks of code in `language`, in their order."""
    return [text for kind, text in _BLOCK.findall(_PAGE.read_text()) if kind == language]
