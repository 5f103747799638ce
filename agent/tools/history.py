"""What the ledger says about earlier generations."""

import glass

SPEC = {
    "name": "history",
    "description": "A digest of earlier generations (the best, the last, the noise) and what is left of the budget.",
    "parameters": {"type": "object", "properties": {}},
}


def run(args: dict) -> dict:
    return {"history": glass.history(), "left": glass.budget()}
