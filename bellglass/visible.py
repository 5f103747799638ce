"""Text of somebody else, as it may be shown: what a reader would not see, or a terminal would act on, is spelled out.

Spelled out are control and format characters, what Unicode calls default-ignorable (variation selectors, fillers,
tags), the blank braille pattern, and right-to-left letters, which reorder what stands beside them. In code every
character outside ASCII is, since one letter can look like another there.

Not covered: words that are there for all to see and that nobody reads.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # categories
BACKWARDS = frozenset({"R", "AL", "AN"})  # directions
# Default_Ignorable_Code_Point of Unicode 15 outside these categories, and the blank pattern of braille.
BLANK = (
    (0x34F, 0x34F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)
PLAIN = "\\n\\t\\x20-\\x7e"  # newlines and tabs stay
OUTSIDE = re.compile(f"[^{PLAIN}]")


def visible(text: str) -> str:
    """For people, whatever it is."""
    return OUTSIDE.sub(lambda found: _shown(found[0]), text)


def spelled(text: str, *, code: bool) -> tuple[str, int]:
    """The same, and how many characters were spelled out; of code all that are outside ASCII."""
    count = 0

    def shown(found: re.Match[str]) -> str:
        nonlocal count
        as_shown = _escaped(found[0]) if code else _shown(found[0])
        count += as_shown != found[0]
        return as_shown

    return OUTSIDE.sub(shown, text), count


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in HIDDEN or unicodedata.bidirectional(character) in BACKWARDS
    return _escaped(character) if hidden or any(a <= ord(character) <= b for a, b in BLANK) else character


def _escaped(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"
