"""Writes docs/config.md from the config's own fields: `python docs/make_config.py`. A test compares the two."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bellglass.config import LoopConfig, load  # noqa: E402

HEAD = """# The config file

Made by `python docs/make_config.py`; don't edit. One TOML file for `bellglass run --config FILE`; the command
line goes over it, and `model = "…"` is short for `main` in the table `[models]`.

```toml
task = "stories"
preset = "cpu"
model = "anthropic/claude-sonnet-4-5"
budget_usd = 2.0
generations = 5
max_pairs = 8
may_edit = ["objective", "optimiser", "scaffold"]
```

`free_models` repeats values of `models`, such as `["ollama/qwen3"]` or, with `OPENAI_BASE_URL`, `["openai/my-model"]`.
Without it the price of a server of your own is unknown, and no call fits under `budget_usd`. A provider's own address
can't be declared free.

The offline improver does not know `may_edit`: its first edit outside of it is refused, and that ends its session early.

| key | default | what it says |
|---|---|---|
"""
FIELD = re.compile(r"^    (\w+): .*?  # (.+)$", re.MULTILINE)


def page() -> str:
    defaults, said = load(None).model_dump(mode="json"), dict(FIELD.findall(inspect.getsource(LoopConfig)))
    return HEAD + "".join(f"| `{key}` | `{value}` | {said[key]} |\n" for key, value in defaults.items())


if __name__ == "__main__":
    (HERE / "config.md").write_text(page())
