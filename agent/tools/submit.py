"""Submit work/ as the successor, after the self-check. This ends the session."""

import desk
import glass
import selfcheck

SPEC = {
    "name": "submit",
    "description": "Submit work/ as the successor and end the session. `note` says honestly what changed, what was "
    "measured and what failed. A failed self-check comes back instead.",
    "parameters": {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]},
}
ENDS = True  # the session is over once this has run


def run(args: dict) -> str:
    found = selfcheck.problems(args["note"])
    if found:
        raise desk.ToolError("not submitted:\n- " + "\n- ".join(found))
    glass.submit(args["note"])
    return "submitted"
