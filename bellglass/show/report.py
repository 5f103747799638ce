"""One file that shows a whole loop: the page with its data inside it, and the same as text. Fetches nothing.

The page's scripts and styles are put into the file and allowed by their hashes alone, so a script that came in with the
data could not run even if it were one. Large texts give way before the file grows beyond what a mail takes: sessions
and curves first, then the diffs of what was not adopted, then the other diffs, then the rows of single trials; the file
says so.

Not covered: whether the numbers are true. The findings of `verify` are in the file; a reader can run it again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bellglass import __version__
from bellglass.errors import BellglassError
from bellglass.paths import loop_name
from bellglass.records import Finding, Json
from bellglass.show.showing import Shown
from bellglass.store.ledger import Ledger
from bellglass.verify import verify

STATIC = Path(__file__).parent.parent / "web" / "static"
MOST_BYTES = 3_000_000
SESSIONS_FROM = 60  # generations beyond which texts are not even gathered: they could not fit
DIFFS_FROM = 600


@dataclass(frozen=True, slots=True)
class Report:
    """What a report holds: the document, the large texts, and what only a report has."""

    document: Json
    diffs: Mapping[int, Json]
    sessions: Mapping[int, Json]
    curves: Mapping[int, Json]
    findings: tuple[Finding, ...]
    reproduce: Json
    left_out: tuple[str, ...] = ()

    def payload(self) -> Json:
        has = {gen["n"] for gen in self.document["generations"]}
        made = {gen["n"] for gen in self.document["generations"] if gen["successor"]}
        dropped = {"sessions": sorted(has - set(self.sessions)), "diffs": sorted(made - set(self.diffs))}
        findings = [asdict(finding) for finding in self.findings]
        extra = {"findings": findings, "reproduce": self.reproduce, "left_out": list(self.left_out)}
        texts = {"diffs": self.diffs, "sessions": self.sessions, "curves": self.curves, "dropped": dropped}
        return {"document": self.document, **texts, "report": extra}


def gather(shown: Shown) -> Report:
    """Reads everything that the report of this loop may hold, and checks the loop."""
    findings = tuple(_findings(shown))
    document = _doubted(shown.document(), findings)
    numbers = [gen["n"] for gen in document["generations"]]
    made = [gen["n"] for gen in document["generations"] if gen["successor"]]
    told = numbers if len(numbers) <= SESSIONS_FROM else []
    compared = made if len(made) <= DIFFS_FROM else []
    diff = shown.differ() if compared else shown.diff
    drawn = {n: shown.curves(n) for n in told}
    report = Report(
        document=document,
        diffs={n: diff(n) for n in compared},
        sessions={n: shown.session(n) for n in told},
        curves={n: found for n, found in drawn.items() if found["series"]},
        findings=findings,
        reproduce=reproduce(shown),
    )
    return within(report)


def _findings(shown: Shown) -> list[Finding]:
    """A loop that is damaged too far to be checked says that."""
    try:
        with Ledger.open(shown.folder, write=False) as ledger:
            return verify(shown.folder, ledger)
    except (BellglassError, LookupError, TypeError, ValueError) as error:
        found = error.one_line() if isinstance(error, BellglassError) else f"{type(error).__name__}: {error}"
        return [Finding("loop", False, found)]


def _doubted(document: Json, findings: Sequence[Finding]) -> Json:
    """What does not fit its own record bears out nothing, and the file says so first."""
    wrong = ", ".join(finding.what for finding in findings if not finding.ok)
    if not wrong:
        return document
    reason = f"verify found what does not fit ({wrong}); see under safety."
    may_not = [f"Anything: {reason}", *document["conclusions"]["may_not"]]
    said = [f"Nothing may be concluded: {reason}", *document["said"]]
    return {**document, "conclusions": {"may": [], "may_not": may_not}, "said": said}


def reproduce(shown: Shown) -> Json:
    """The commands that check this loop and that make one like it, and the conditions they need."""
    state, about = shown.state, shown.about
    created, config = state.created or {}, state.config or {}
    name = shlex.quote(loop_name(str(created.get("task", "")), state.loop_id))  # a stranger's ledger may say anything
    glass = ", then ".join([str(created.get("glass")), *state.later_glasses])
    commands = [
        f"bellglass verify {name} --head {about.head[:12]}   # chain, hashes, seeds, decisions",
        f"bellglass verify {name} --rejudge   # judge the stored weights again",
        f"bellglass run {_words(created, config)}   # a loop like it",
    ]
    content = created.get("content", {})
    facts = [
        [
            "bellglass",
            f"{created.get('version', 'unknown')} (this file: {__version__}, Python {platform.python_version()})",
        ],
        ["loop", name],
        *([] if about.standing is None else [["standing", f"{about.standing.word}: {about.standing.why}"]]),
        ["glass", f"{glass}, {'sealed' if created.get('sealed') else 'unsealed'}"],
        ["models", ", ".join(f"{key}: {value}" for key, value in config.get("models", {}).items())],
        ["seed", "none given: data nobody has seen" if config.get("seed") is None else str(config["seed"])],
        ["secret commitment", created.get("secret_commitment", "–")],
        ["ledger head", f"{about.head}, event {about.seq}"],
        ["starter", state.starter],
        *([f"content: {key}", str(value)] for key, value in sorted(content.items())),
        ["config", json.dumps({key: value for key, value in sorted(config.items()) if value is not None})],
    ]
    return {"commands": commands, "facts": facts}


def _words(created: Json, config: Json) -> str:
    """The options of `bellglass run` that say most of a config; the whole of it stands among the facts."""
    words = [str(config.get("task", created.get("task", "")))]  # a folder of one's own by its path
    for option, key in (
        ("--model", "main"),
        ("--preset", "preset"),
        ("--generations", "generations"),
        ("--seed", "seed"),
    ):
        value = config.get("models", {}).get(key) if key == "main" else config.get(key)
        if value is not None:
            words += [option, str(value)]
    return shlex.join([*words, "--glass", str(created.get("glass", "auto"))])


def within(report: Report, most_bytes: int = MOST_BYTES) -> Report:
    """The report with as much of its texts as fits, and a sentence for what does not."""
    doc = report.document
    made = [gen for gen in doc["generations"] if gen["successor"]]
    gone = []
    if len(doc["generations"]) > SESSIONS_FROM:
        gone.append("The improvers' sessions and the curves were left out")
    if made and not report.diffs:
        gone.append("All diffs were left out")
    adopted = {gen["n"] for gen in made if gen["trainer"] == "adopted"}
    kept = {n: diff for n, diff in report.diffs.items() if n in adopted}
    rows = {**doc, "trials": {**doc["trials"], "rows": [], "dropped": True}}
    steps: tuple[tuple[str, dict[str, Json]], ...] = (
        ("The improvers' sessions and the curves were left out", {"sessions": {}, "curves": {}}),
        ("Diffs of successors that were not adopted were left out", {"diffs": kept}),
        ("All diffs were left out", {"diffs": {}}),
        ("The rows of single trials were left out", {"document": rows}),
    )
    now = replace(report, left_out=_sentences(gone))
    for words, without in steps:
        if len(html(now).encode()) <= most_bytes:
            break
        if any(getattr(now, part) != left for part, left in without.items()):
            gone.append(words)
        now = replace(now, **without, left_out=_sentences(gone))
    return now


def _sentences(gone: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{words} to keep this file small." for words in gone)


# The file


def html(report: Report) -> str:
    """The page of `web/static` with its parts inside, allowed by hash, and the data as text that is no script."""
    page = (STATIC / "page.html").read_text("utf-8")
    head, _, rest = page.partition('<link rel="stylesheet"')
    before, _, after = rest.partition("\n")[2].partition("<script ")
    names = [line.split('"')[0] for line in ("<script " + after).split('src="static/')[1:]]
    style = (STATIC / "page.css").read_text("utf-8")
    script = "\n".join((STATIC / name).read_text("utf-8") for name in names)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )
    head = head.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    data = f'<script type="application/json" id="data">{as_script_text(report.payload())}</script>'
    return f"{head}<style>{style}</style>\n{before}{data}\n<script>{script}</script>\n</body>\n</html>\n"


def as_script_text(value: Json) -> str:
    """JSON that cannot end the element it stands in, nor begin another; ASCII, so that no byte is misread."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
