"""Null edits: changes of the starter's trainer that change nothing that matters, to see what a gate makes of them.

Each is text that stands exactly once in one file, and what it becomes. `bellglass calibrate` trains the starter beside
them to learn how much pairing helps; benchmarks/gate.py counts how often they are adopted.

Not covered: a trainer that was rewritten. There an edit no longer fits, and that is an error, never a silent skip.
"""

from __future__ import annotations

from dataclasses import dataclass

from bellglass.errors import LoopFault
from bellglass.records import Bundle


@dataclass(frozen=True, slots=True)
class Change:
    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Null:
    name: str  # also the end of its trials' ids
    about: str
    changes: tuple[Change, ...]


def edited(bundle: Bundle, null: Null) -> Bundle:
    """The bundle with that edit. LoopFault where a text is not there exactly once."""
    files = dict(bundle)
    for change in null.changes:
        data, old = files.get(change.path, b""), change.old.encode()
        if data.count(old) != 1:
            found = f"{change.path} holds {change.old.strip().splitlines()[0]!r} {data.count(old)} times"
            raise LoopFault(
                f"null edit {null.name!r}",
                found,
                "the text it replaces, once",
                "edit bellglass/nulls.py",
                code="null_edit_unfit",
            )
        files[change.path] = data.replace(old, change.new.encode())
    return files


COMMENT = Null(
    "comment",
    "comments and renames",
    (
        Change(
            "trainer/data.py",
            """\
        rows = torch.randint(len(self._documents), (self._size,), generator=self._generator)
        return self._documents[rows]
""",
            """\
        # Drawn with replacement: a document may come twice in one batch.
        chosen = torch.randint(len(self._documents), (self._size,), generator=self._generator)
        return self._documents[chosen]
""",
        ),
        Change(
            "trainer/train.py",
            """\
        tokens = fabric.to_device(batches.next())
        loss = objective.loss(model(tokens[:, :-1]), tokens, pad)
""",
            """\
        batch = fabric.to_device(batches.next())  # each place in it predicts the next one
        loss = objective.loss(model(batch[:, :-1]), batch, pad)
""",
        ),
    ),
)

DRAW = Null(
    "draw",
    "one extra random draw after seeding",
    (
        Change(
            "trainer/train.py",
            '    torch.manual_seed(args["init_seed"])\n',
            '    torch.manual_seed(args["init_seed"])\n    torch.rand(1)\n',
        ),
    ),
)

ORDER = Null(
    "order",
    "batches drawn from a generator with another seed",
    (Change("trainer/data.py", "torch.Generator().manual_seed(seed)", "torch.Generator().manual_seed(seed + 1)"),),
)

HALVES = Null(
    "halves",
    "gradients accumulated over two halves of an equal batch",
    (
        Change(
            "trainer/train.py",
            """\
        loss = objective.loss(model(tokens[:, :-1]), tokens, pad)
        optimiser.zero_grad()
        fabric.backward(loss)
        optimiser.step()
""",
            """\
        loss = torch.zeros((), device=tokens.device)
        optimiser.zero_grad()
        for half in tokens.chunk(2):
            part = objective.loss(model(half[:, :-1]), half, pad) / 2
            fabric.backward(part)
            loss += part.detach()
        optimiser.step()
""",
        ),
    ),
)

# After a dozen steps on stories the smaller rate costs 0.063 bits and the larger one gains 0.062 (8 paired seeds): the
# mean stays, and the spread over seeds of 0.02 to 0.05 grows. Longer trainings may tilt it; benchmarks/gate.py shows.
JITTER = Null(
    "jitter",
    "a learning rate that each seed makes larger or smaller: about the same mean, a larger spread",
    (
        Change(
            "trainer/train.py",
            '            group["lr"] = learning_rate(1 - left / total)\n',
            '            group["lr"] = learning_rate(1 - left / total) * (LOW, HIGH)[glass.args["init_seed"] % 2]\n',
        ),
        Change("trainer/train.py", "LEARNING_RATE = 1e-3\n", "LEARNING_RATE = 1e-3\nLOW, HIGH = 0.88, 1.13\n"),
    ),
)

EQUAL_SPREAD = (COMMENT, DRAW, ORDER, HALVES)  # what `bellglass calibrate` trains
ALL = (*EQUAL_SPREAD, JITTER)
