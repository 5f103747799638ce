"""Write a whole file."""

import desk

SPEC = {
    "name": "write_file",
    "description": "Write a file of work/, new or over the old one. `text` is the whole new text.",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
        "required": ["path", "text"],
    },
}


def run(args: dict) -> str:
    return f"wrote {desk.write(args['path'], args['text'])} characters to {args['path']}"
