"""What a hook prints, made harmless for a terminal: colours stay, whatever else steers one goes.

The text comes from whatever a repository's build prints. ECMA-48 has the sequences. Pure.
"""

import re

_TEXT = r"[^\x07\x1b\n]{0,2000}"
_SEQUENCE = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]{0,128}m)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # cursor, erasing, modes
    rf"|\x1b[\]PX^_]{_TEXT}(?:\x07|\x1b\\)"  # titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?"
    # Other control characters, the eight-bit ones too, and what turns text around.
    "|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
_CUT_OFF = re.compile(rf"(?:\x1b\[[0-?]*[ -/]*|\x1b[\]PX^_]{_TEXT}\x1b?|\x1b[ -/]*|\r)\Z")
_LONGEST = 2048


def without_escapes(text: str) -> str:
    """`text` without colours as well."""
    return _SEQUENCE.sub("", text)


class Harmless:
    """One output, piece by piece; a sequence may begin in one piece and end in the next."""

    def __init__(self) -> None:
        self._cut_off = ""

    def feed(self, text: str) -> str:
        """As much of it as is whole. A lone carriage return begins a line, as progress bars do."""
        text = self._cut_off + text
        cut = _CUT_OFF.search(text, max(0, len(text) - _LONGEST))
        end = cut.start() if cut else len(text)
        self._cut_off = text[end:]
        lines = text[:end].replace("\r\n", "\n").replace("\r", "\n")
        return _SEQUENCE.sub(lambda found: found["colour"] or "", lines)
