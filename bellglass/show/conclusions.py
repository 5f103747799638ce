"""What a loop's record lets a reader conclude, and what not, in sentences. Pure; for report and page.

Cautious on purpose: a sentence under "may" is one that the host's own measurements bear out, with its conditions in it.

Not covered: whether the ledger is genuine; `verify` is for that, and the report shows what it found beside.
"""

from __future__ import annotations

from bellglass.records import Json
from bellglass.show import baselines, summary
from bellglass.store.ours import Standing
from bellglass.store.state import State

CONDITION = (
    "Only what its maker's records say, if they are true: `bellglass verify LOOP --rejudge` and `bellglass recheck` "
    "test them."
)


def conclusions(state: State, standing: Standing | None = None) -> Json:
    """`standing`: of a loop that nobody here has made from its first event on, all is said under a condition."""
    if not state.config:
        return {"may": [], "may_not": ["anything: the ledger does not say how the loop began"]}
    may = _may(state)
    if may and standing is not None and not standing.made_here:
        may = [CONDITION, *(f"By those records, {line[0].lower()}{line[1:]}" for line in may)]
    return {"may": may, "may_not": [*_measured(state), *_improver(state), *_conditions(state)]}


def _may(state: State) -> list[str]:
    said = []
    gain = summary.final_gain(state)
    place, unit = f"{state.created['task']} ({state.config['preset']})", summary.title_and_unit(state)[1]
    if gain is not None and gain.low > 0:
        said.append(
            f"The champion is better than the starter on {place}, under this budget: by {gain.text('+')} {unit} "
            f"over {gain.n} pairs of seeds, on documents used for nothing else{_failed(state)}."
        )
    adopted = sum(gen.adopted for gen in state.generations.values())
    if adopted:
        said.append(
            f"{adopted} trainer(s) passed a gate that adopts one which is no better with probability at most "
            f"{state.config['alpha']:g} over the whole loop, if its assumptions hold."
        )
    ended = [gen for gen in state.generations.values() if gen.result is not None]
    refused = sum(gen.result["trainer"] in ("rejected", "failed") for gen in ended)
    if refused:
        said.append(f"{refused} successor(s) were refused: a claim alone changed nothing.")
    return said


def _measured(state: State) -> list[str]:
    said = []
    gain = summary.final_gain(state)
    if state.final is None:
        said.append("That the champion is better than the starter: the final split has not been opened.")
    elif gain is None and state.champion != state.starter:
        said.append(f"That the champion is better than the starter: {summary.final_lacks(state)}{_failed(state)}.")
    elif gain is not None and gain.low <= 0:
        clear = f"{gain.text('+')} bits is not clear of zero{_failed(state)}"
        said.append(f"That the champion is better than the starter: {clear}.")
    if state.tripwires:
        said.append("Anything from the generations in which a tripwire fired, before a person has looked.")
    return said


def _failed(state: State) -> str:
    """Behind what is said of the gain on `final`."""
    failed = summary.final_words(state)["failed"]
    return f"; {failed}" if failed else ""


def _improver(state: State) -> list[str]:
    said = list(summary.about_improvers(state))
    providers = set(state.config["models"].values())
    if summary.POSITIVE_CONTROL not in said and not providers & set(baselines.NAMES):
        beside = baselines.for_loop(state)
        missing = "no baselines are stored for this task and preset" if beside is None else "see the baselines beside"
        if state.champion != state.starter:
            said.append(f"How much of the gain a search that understands nothing would have found: {missing}.")
    inherited = sum(
        gen.result is not None and gen.result["scaffold"] == "inherited" for gen in state.generations.values()
    )
    if inherited:
        neutral = " or measurably no different" if state.config["scaffold_rule"] == "neutral" else ""
        said.append(
            f"That the {inherited} inherited scaffold(s) improve better than their parents: each came along with a "
            f"trainer that was better{neutral}; none was measured for itself."
        )
    return [*said, "Anything about the language model itself: the loop does not train it."]


def _conditions(state: State) -> list[str]:
    said = ["That another loop would end the same: this is one loop, with one secret and one course of events."]
    if not state.created["sealed"]:
        said.append("Anything about containment: guests ran as plain processes, which isolate nothing.")
    if state.later_glasses:
        ran = ", then ".join(state.glasses)
        said.append(f"That its noise is what was measured before the first generation: its glass was {ran}.")
    if state.config["virtual_clock"]:
        said.append("Anything about budgets in time: this loop counted steps.")
    if state.ended is None or state.ended["why"] != "finished":
        said.append("That this is the loop's last word: it did not finish within its bounds, or has not yet.")
    return said
