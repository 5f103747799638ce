"""What Weights & Biases is told about a loop, as plain rows. Pure, and no import of wandb.

Every number is the page's (view.py), so that W&B, page and report cannot disagree. Words that came from a guest are
spelled out and cut; what a guest named becomes a key only below `claim/`, where nothing else is. `claimed/` is the
host's account of claims: their mean over the trainings that the verdict beside it is the mean of.

Not covered: what W&B's site does with a text. It is given no markup of ours but the notes of the loop's run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from bellglass.curves import Point
from bellglass.loop import ENDS
from bellglass.ports import Row, Table
from bellglass.records import Bundle, Json
from bellglass.store.ledger import Event
from bellglass.visible import visible

TEXT_CHARS = 2000
KEY_CHARS = 80
HALTED = ("tripwire", "failed")  # ends of a loop that W&B is to show as failed; a stop, a bound, a review are none
HEAD_CHARS = 12
NAME_CHARS = 100  # of a run's id; W&B takes 128
GENERATION = "generation"  # the step metric of the loop's run
STEP, SECONDS = "trainer/step", "trainer/seconds"  # those of a training
TOLD_OF_LOOP = (
    "id", "name", "task", "title", "unit", "glass", "sealed", "version", "secret_commitment", "starter", "champion",
    "models", "head", "seq",
)  # fmt: skip
CANDIDATE_COLUMNS = ("id", "generation", "purpose", "side", "claim", "raw", "score", "select", "seconds", "fault")


# Names


def safe(name: str) -> str:
    """A part of an id, a file's or an artifact's name, whatever wrote the ledger that it is from."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:NAME_CHARS] or "_"


def name_of_loop(doc: Json) -> str:
    """What the ids of its runs begin with: the loop's own id only where that was given here. Anybody may give a loop
    any id, and a run of a known id takes the place of the one that has it; so of a received loop the head is part."""
    loop, standing = doc["loop"], doc["loop"]["standing"]
    own = standing is not None and standing["word"] == "ours"
    return safe(loop["id"]) if own else f"{safe(loop['id'])[: NAME_CHARS // 2]}-{loop['head'][:HEAD_CHARS]}"


def alias(number: int) -> str:
    return f"gen-{number:03d}"


def plain(value: Json) -> Json:
    """The same value with every text in it spelled out and cut."""
    if isinstance(value, str):
        return visible(value[:TEXT_CHARS])
    if isinstance(value, Mapping):
        return {str(plain(str(key))): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def unit_key(unit: str) -> str:
    """bits per byte -> bits_per_byte: raw bits under their own name compare with other projects' figures."""
    return re.sub(r"[^a-z0-9]+", "_", unit.lower()).strip("_") or "bits"


def claim_keys(names: Iterable[str]) -> dict[str, str]:
    """A key of its own for every metric that a trainer named."""
    keys: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(names):
        stem = f"claim/{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:KEY_CHARS] or '_'}"
        key, count = stem, 2
        while key in used:
            key, count = f"{stem}_{count}", count + 1
        keys[name] = key
        used.add(key)
    return keys


# The loop


def about_loop(doc: Json) -> Row:
    """The config of its run, and of every other one: what makes figures comparable, and the ledger's head."""
    told = {key: doc["loop"].get(key) for key in TOLD_OF_LOOP}
    calibration = doc["calibration"] or {}
    more = {
        "settings": doc["config"],
        "noise_sd": calibration.get("sd"),
        "smallest_gain": calibration.get("smallest_gain"),
        "floor_bits": doc["floor"],
        "said": doc["said"],
        "missing": doc["missing"],
    }
    return dict(plain({**told, **more}))


def notes(doc: Json) -> str:
    """On top of the loop's run: what its results are evidence of, and what they are not."""
    return "\n\n".join([*doc["said"], f"Ledger head {doc['loop']['head']}, event {doc['loop']['seq']}."])


def row_of(gen: Json, unit: str, size: Row) -> Row:
    """One generation. What nobody measured has no key: unknown is not nought."""
    cost, key = gen["cost"], unit_key(unit)
    row = {
        GENERATION: gen["n"],
        **_measured(gen, key),
        **_ends("verdict/gain", gen["gain"]),
        **_ends("gap/select_confirm", gen["fitted"]),
        "decision/trainer": gen["trainer"],
        "decision/scaffold": gen["scaffold"],
        "decision/gate": gen["gate"],
        "decision/adopted": int(gen["trainer"] == "adopted"),
        "decision/scaffold_inherited": int(gen["scaffold"] == "inherited"),
        **{f"cost/{name}": cost[name] for name in ("train_seconds", "calls", "tokens_in", "tokens_out", "usd")},
        "tripwires/alarms": gen["alarms"],
        "explored/trials": gen["explored"],
        "explored/best_above_floor": gen["best_explored"],
        **size,
    }
    return _known(row)


def row_of_starter(doc: Json, size: Row) -> Row:
    """Generation 0 is the starter."""
    return _known({GENERATION: 0, **_measured(doc["starter"], unit_key(doc["loop"]["unit"])), **size})


def _measured(found: Json, key: str) -> Row:
    return {
        f"claimed/{key}": found["claim"],
        **_ends(f"verdict/{key}", found["raw"]),
        **_ends("verdict/above_floor", found["score"]),
        "gap/claim_verdict": found.get("claim_gap"),
        **{f"skill/{safe(skill)}": value for skill, value in found["skills"].items()},
    }


def scaffold_size(bundle: Bundle) -> Row:
    files = [data for path, data in bundle.items() if path.startswith("scaffold/")]
    return {
        "scaffold/files": len(files),
        "scaffold/bytes": sum(map(len, files)),
        "scaffold/lines": sum(len(data.splitlines()) for data in files),
    }


def exit_code(doc: Json) -> int:
    """What `bellglass run` ended with where the loop was halted, else 0."""
    why = (doc["ended"] or {}).get("why")
    return next((kind.exit_code for kind, word in ENDS if word == why and word in HALTED), 0)


def end_of(doc: Json) -> Row:
    """The summary of the loop's run."""
    final = doc["final"] or {}
    spent = {f"spent/{key}": value for key, value in doc["spent"].items()}
    burnt = {f"burnt/{key}": value for key, value in doc["burnt"].items() if value}
    ended = doc["ended"] or {}
    row = {
        **spent,
        **burnt,
        "spent/wall_seconds": doc["wall_seconds"],
        **_ends("final/gain", final.get("gain")),
        "final/clear": final.get("clear"),
        "final/lacks": final.get("lacks") or None,
        "final/failed": final.get("failed") or None,
        "baselines": (doc["baselines"] or {}).get("line"),
        "tripwires/latched": len(doc["tripwires"]),
        "tripwires/names": ", ".join(sorted({str(wire.get("name", "?")) for wire in doc["tripwires"]})) or None,
        "ended/why": ended.get("why", "still open"),
        "ended/detail": ended.get("detail"),
        "head": doc["loop"]["head"],
    }
    return _known({key: plain(value) for key, value in row.items()})


def generations_table(doc: Json) -> Table:
    skills = sorted({skill for gen in doc["generations"] for skill in gen["skills"]})
    ends = [(name, end) for name in ("raw", "score", "gain", "fitted") for end in ("mean", "low", "high")]
    first = ("n", "from", "successor", "kinds", "trainer", "scaffold", "gate", "why", "claim")
    costs = ("train_seconds", "calls", "tokens_in", "tokens_out", "usd")
    columns = [*first, *("_".join(pair) for pair in ends), *(f"skill {plain(skill)}" for skill in skills), *costs]
    rows = [
        [
            *(plain(" ".join(gen[key]) if key == "kinds" else gen[key]) for key in first),
            *((gen[name] or {}).get(end) for name, end in ends),
            *(gen["skills"].get(skill) for skill in skills),
            *(gen["cost"][key] for key in costs),
            plain(gen["note"]),
        ]
        for gen in doc["generations"]
    ]
    return [*columns, "the improver's own words"], rows


def candidates_table(doc: Json) -> Table:
    """Every trial: each trained one candidate, or the parent beside it."""
    found = doc["trials"]
    places = [list(found["columns"]).index(column) for column in CANDIDATE_COLUMNS]
    return list(CANDIDATE_COLUMNS), [[plain(row[place]) for place in places] for row in found["rows"]]


def champions(generations: Iterable[Json]) -> tuple[int, int]:
    """Which generation made the champion's bundle, and which its trainer: a scaffold can be inherited alone. A champion
    is a commit of its own, never the successor's, and a generation that made none names its parent."""
    bundle = trainer = 0
    for gen in generations:
        if gen["done"] and gen["champion"] != gen["parent"]:
            bundle = gen["n"]
            trainer = bundle if gen["trainer"] == "adopted" else trainer
    return bundle, trainer


# Trainings


def training(points: Mapping[str, Sequence[Point]], end: Row) -> list[Row]:
    """What a trainer reported, by its own steps; `end` stands at the last of them, beside where the claims got to.

    A metric that stayed at one step is a result, like `claim_bits`: its step is most often the default, 0, whenever it
    was reported. Its last value stands with the others at the end, and says nothing about when the first step was.
    """
    keys = claim_keys(points)
    steps: dict[int, Row] = {}
    results: Row = {}
    for name, series in points.items():
        if len({step for step, _, _ in series}) < 2:
            results.update((keys[name], value) for _, _, value in series)
            continue
        for step, seconds, value in series:
            row = steps.setdefault(step, {STEP: step, SECONDS: seconds})
            row[SECONDS] = min(row[SECONDS], seconds)
            row[keys[name]] = value
    rows = [steps[step] for step in sorted(steps)] or [_only_row(points)]
    rows[-1] |= {**results, **end}
    return rows


def _only_row(points: Mapping[str, Sequence[Point]]) -> Row:
    """Of a training in which no metric went on to a second step: as far as any got."""
    ends = [series[-1] for series in points.values() if series]
    if not ends:
        return {STEP: 0}
    return {STEP: max(step for step, _, _ in ends), SECONDS: max(seconds for _, seconds, _ in ends)}


def verdict_of_trial(row: Sequence[Json], columns: Sequence[str], unit: str) -> Row:
    """Of one row of the page's trials."""
    found, key = dict(zip(columns, row, strict=True)), unit_key(unit)
    told = {f"claimed/{key}": found["claim"], f"verdict/{key}": found["raw"], "verdict/above_floor": found["score"]}
    told |= {"verdict/select": found["select"], "cost/train_seconds": found["seconds"], "fault": found["fault"]}
    return _known(told)


# Times


def last_times(events: Iterable[Event]) -> dict[int, float]:
    """When the ledger last heard of each generation; 0 stands for the loop's beginning."""
    times: dict[int, float] = {}
    for event in events:
        number = event.body.get("generation") if isinstance(event.body, dict) else None
        times.setdefault(0, event.time)
        if isinstance(number, int) and number > 0:
            times[number] = event.time
    return times


def _ends(key: str, interval: Json) -> Row:
    return {} if interval is None else {key: interval["mean"], **{f"{key}_{e}": interval[e] for e in ("low", "high")}}


def _known(row: Row) -> Row:
    return {key: value for key, value in row.items() if value is not None}
