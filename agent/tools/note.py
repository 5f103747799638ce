"""Write a line into the loop's ledger."""

import glass

SPEC = {
    "name": "note",
    "description": "Put a line into the loop's ledger: an idea, a failure, a doubt. People read it.",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def run(args: dict) -> str:
    glass.note(args["text"])
    return "noted"
