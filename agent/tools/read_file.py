"""Read a file, or list a folder."""

import desk

SPEC = {
    "name": "read_file",
    "description": "Read a file of work/ (its exact text), or list a folder. `first` and `last` pick lines, from 1 on.",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "first": {"type": "integer"}, "last": {"type": "integer"}},
        "required": ["path"],
    },
}


def run(args: dict) -> str:
    full = desk.inside(args["path"])
    if full.is_dir():
        return "\n".join(f"{path.relative_to(desk.WORK)}  {path.stat().st_size} bytes" for path in desk.files(full))
    lines = desk.read(args["path"]).splitlines(keepends=True)
    first, last = int(args.get("first") or 1), int(args.get("last") or len(lines))
    return "".join(lines[max(0, first - 1) : last])
