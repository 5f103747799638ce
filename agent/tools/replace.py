"""Replace one passage of a file."""

import desk

SPEC = {
    "name": "replace",
    "description": "Replace a passage of a file of work/. `old` must stand in it exactly once, to the last space.",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "old": {"type": "string"}, "new": {"type": "string"}},
        "required": ["path", "old", "new"],
    },
}


def run(args: dict) -> str:
    text = desk.read(args["path"])
    count = text.count(args["old"]) if args["old"] else 0
    if count != 1:
        raise desk.ToolError(f"{args['path']}: `old` stands there {count} times, not once; nothing was changed")
    desk.write(args["path"], text.replace(args["old"], args["new"]))
    return f"replaced in {args['path']}"
