"""Train and judge what is in work/trainer."""

import glass

SPEC = {
    "name": "trial",
    "description": "Train work/trainer in a fresh sandbox and judge it; lower scores are better. `fraction` (0.1 to 1) "
    "trains for that share of the budget, and costs that share of a trial. `note` says what is being tried.",
    "parameters": {
        "type": "object",
        "properties": {"note": {"type": "string"}, "fraction": {"type": "number"}},
        "required": ["note"],
    },
}


def run(args: dict) -> dict:
    return glass.trial(note=args["note"], fraction=float(args.get("fraction") or 1.0))
