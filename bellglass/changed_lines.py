"""What of a bundle's text is new, line by line, and what a line says: imports, handlers of exceptions, data.

Read by lines and patterns, each in time proportional to its line; nothing is parsed. `ast.parse` of a stranger's text
can use up this process's stack or memory, knows the grammar of the Python out here, and says nothing of a text that
does not parse. Nor are strings told from code: a nested f-string would put a simple reader out of step, and hide what
stands behind it. So a line that reads like an import is one, in a docstring too: rather too many than one too few.

Not covered: what is written so that it does not read like what it does.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bellglass.store.differences import Change, Difference, lines_of
from bellglass.store.lineage import CODE, Comparison

TRAINER = "trainer/"

APART = re.compile(r"[;:]")  # statements in one line; a colon in an expression only makes more pieces
IMPORT = re.compile(r"[ \t\f]*(import|from)\b(.*)", re.DOTALL)
NAMED = re.compile(r"\s*(\w+)(?:\s*\.\s*\w+)*(?:\s+as\s+\w+)?\s*")
FROM = re.compile(r"\s*(\w+)(?:\s*\.\s*\w+)*\s+import\b")

MOST_BODY_LINES = 100  # of a handler
HANDLER = re.compile(r"[ \t\f]*except\b")
BROAD = re.compile(r"\b(Base)?Exception\b")
BOUND = re.compile(r"\bas\s+(\w+)")
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
REPORTS = re.compile(r"\b(raise|print|note|metric|traceback|exit|abort|log\w*|warn\w*)\b")
IDLE = {"pass", "...", "continue", "break", "return", "return None"}

LONG_LINE = 400  # characters; nobody reads to its end
DENSE_WORD = re.compile(r"[\w+/=\\-]{20,}", re.ASCII)
LIST_ITEMS = 4  # in one line
TEXT_RUN = 12  # lines without any sign of code, one after the other


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file. `number` counts in the new text; of a removed line, where it would stand there."""

    path: str
    number: int
    sign: str  # "+" added, "-" removed, " " neither
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One line as Python reads it; what ends in a backslash goes on in the next."""

    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class Handler:
    """Of exceptions."""

    first: int
    last: int
    head: str
    body: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangedFile:
    path: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    changes: tuple[Change, ...]
    fresh: frozenset[int]  # numbers of the lines that were added
    about: frozenset[int]  # and of those beside which one was removed

    @property
    def is_code(self) -> bool:
        return self.path.endswith(CODE)

    @property
    def in_trainer(self) -> bool:
        return self.path.startswith(TRAINER)

    def lines(self) -> Iterator[Line]:
        for change in self.changes:
            for text in self.old[change.old : change.old_end]:
                yield Line(self.path, min(change.new + 1, max(1, len(self.new))), "-", text)
            for number, text in enumerate(self.new[change.new : change.new_end], change.new + 1):
                yield Line(self.path, number, "+", text)

    def added(self) -> Iterator[Line]:
        return (line for line in self.lines() if line.sign == "+")

    def touched(self, first: int, last: int) -> bool:
        """Whether one of these lines was added, or another removed beside it."""
        return any(number in self.about for number in range(first, last + 1))

    def line(self, number: int) -> Line:
        return Line(self.path, number, "+" if number in self.fresh else " ", self.new[number - 1])


def changed_files(comparison: Comparison) -> tuple[ChangedFile, ...]:
    """The trainer's first."""
    files = sorted(comparison.files, key=lambda one: not one.path.startswith(TRAINER))
    return tuple(_changed_file(one, comparison) for one in files)


def _changed_file(one: Difference, comparison: Comparison) -> ChangedFile:
    old, new = text_lines(comparison.old.get(one.path)), text_lines(comparison.new.get(one.path))
    fresh = {number for change in one.changes for number in range(change.new + 1, change.new_end + 1)}
    removed = [change.new for change in one.changes if change.old < change.old_end]
    beside = {number for at in removed for number in (at, at + 1)}
    return ChangedFile(one.path, old, new, one.changes, frozenset(fresh), frozenset(fresh | beside))


def text_lines(data: bytes | None) -> tuple[str, ...]:
    """As a diff counts them."""
    return tuple(line.removesuffix(b"\n").decode("utf-8", "replace") for line in lines_of(data))


def plain(text: str) -> str:
    """As Python reads names: letters that mean the same are the same."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def readings(lines: Sequence[str]) -> Iterator[Reading]:
    """Each line; a lone carriage return begins another."""
    for number, line in enumerate(lines, 1):
        for piece in plain(line).removesuffix("\r").split("\r"):
            yield Reading(number, number, piece)


def joined(lines: Sequence[str]) -> Iterator[Reading]:
    """What goes on over a backslash, as one line; its lines are readings of their own as well.

    Behind a comment nothing goes on, and whether a `#` begins one is not known here: so both are read.
    """
    before: list[Reading] = []
    for one in readings(lines):
        goes_on = one.text.endswith("\\")
        if before and (not goes_on or "#" in one.text):
            for parts in (before, before[1:]) if "#" in before[0].text else (before,):
                text = " ".join([*(part.text[:-1] for part in parts), one.text])
                yield Reading((*parts, one)[0].first, one.last, text)
            before = []
        if goes_on:
            before.append(one)


# Imports


def imports(lines: Sequence[str]) -> Iterator[tuple[Reading, frozenset[str]]]:
    """Every line that imports, and the top-level names; of what is relative, none."""
    for one in (*readings(lines), *joined(lines)):
        names = {name for statement in APART.split(one.text) for name in _imported(statement)}
        if names:
            yield one, frozenset(names)


def _imported(statement: str) -> Iterator[str]:
    """Only by what Python would take: most sentences that begin with `import` are none."""
    found = IMPORT.match(statement)
    if found is None:
        return
    rest = found[2].partition("#")[0]
    if found[1] == "from":
        origin = FROM.match(rest)
        parts = [origin] if origin else []
    else:
        parts = [part for text in rest.split(",") if (part := NAMED.fullmatch(text))]
    yield from (part[1] for part in parts)


# Handlers of exceptions


def handlers(lines: Sequence[str]) -> Iterator[Handler]:
    read = list(readings(lines))
    for at, one in enumerate(read):
        if HANDLER.match(one.text):
            yield _handler(read, at)


def _handler(read: Sequence[Reading], at: int) -> Handler:
    """Its body is what stands behind the colon, or below it and further in."""
    head, behind = read[at].text, at + 1
    while ":" not in head and behind < min(len(read), at + MOST_BODY_LINES):
        head, behind = f"{head} {read[behind].text}", behind + 1
    head, _, inline = head.partition(":")
    depth, last = _depth(read[at].text), read[behind - 1].last
    body = [_uncommented(inline)] if _uncommented(inline) else []
    if not body:
        for one in read[behind : behind + MOST_BODY_LINES]:
            text = _uncommented(one.text)
            if text and _depth(one.text) <= depth:
                break
            if text:
                body.append(text)
                last = one.last
    return Handler(read[at].first, last, head, tuple(body))


def _depth(text: str) -> int:
    text = text.expandtabs(8)
    return len(text) - len(text.lstrip())


def _uncommented(text: str) -> str:
    """A `#` in a string ends it, too: what is lost can only make a handler look quieter."""
    return text.partition("#")[0].strip()


def swallows(handler: Handler) -> bool:
    """It does nothing at all; or it catches everything and neither raises, reports nor uses what it caught."""
    if all(text in IDLE for text in handler.body):
        return True
    kinds = handler.head.strip(" \t\f").removeprefix("except").strip(" \t\f*\\")
    if kinds and not BROAD.search(kinds):
        return False
    body = "\n".join(handler.body)
    bound = BOUND.search(kinds)
    used = bound is not None and re.search(rf"\b{re.escape(bound[1])}\b", body) is not None
    return not used and REPORTS.search(QUOTED.sub("", body)) is None


def suppresses(text: str) -> bool:
    """The same as a context manager."""
    _, found, rest = plain(text).partition("suppress(")
    return bool(found) and BROAD.search(rest) is not None


# Data


def data_like(line: Line, *, in_trainer: bool, is_code: bool) -> bool:
    """Digits, words that nobody says, or in a trainer a list or a line without an end."""
    text = line.text.strip()
    dense = sum(map(len, filter(_nobody_says, DENSE_WORD.findall(text))))
    dense += sum(not c.isascii() for c in text) if is_code else 0
    digits = sum(map(str.isdigit, text))
    if 3 * dense >= len(text) > 0 or (digits >= 12 and 3 * digits >= len(text) - text.count(" ")):
        return True
    return in_trainer and (len(text) >= LONG_LINE or _is_list(text))


def _nobody_says(word: str) -> bool:
    digits = sum(map(str.isdigit, word))
    return len(set(word)) >= 8 and (8 * digits >= len(word) or len(word) >= 40)


def _is_list(text: str) -> bool:
    text = text.replace('"""', "").replace("'''", "")
    items, rest = len(QUOTED.findall(text)), QUOTED.sub("", text)
    alone = items > 0 and not rest.strip(" \t,()[]{}")
    return alone or (items >= LIST_ITEMS and 5 * sum(map(str.isalpha, rest)) <= len(text))


def runs_of_text(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Added lines of plain words one after the other, comments and docstrings too."""
    run: list[Line] = []
    for line in lines:
        follows = not run or line.number == run[-1].number + 1
        if follows and _only_words(line.text):
            run.append(line)
            continue
        if len(run) >= TEXT_RUN:
            yield run
        run = [line] if _only_words(line.text) else []
    if len(run) >= TEXT_RUN:
        yield run


def _only_words(text: str) -> bool:
    words = text.strip(" \t#\"'").split()
    letters = "".join(word.strip(".,;!?-'’") for word in words)
    return letters.isalpha() and not keyword.iskeyword(words[0])
