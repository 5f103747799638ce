"""Passages of code that the menu's larger edits put in: pairs of what they look for and what stands there afterwards.

They are text for a trainer inside a glass; nothing on the host runs them. Each list belongs to the edit of that name.
"""

from __future__ import annotations

from typing import TypeAlias

Passages: TypeAlias = tuple[tuple[str, str], ...]

WARMUP_DECAY = "    return LEARNING_RATE * min(1.0, 0.1 + progress / 0.05) * (1.0 - progress)"

PREVIOUS_TOKEN: Passages = (
    (
        "        self.embed = nn.Embedding(shape.vocab, shape.width)\n",
        """\
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.before = nn.Embedding(shape.vocab, shape.width)
""",
    ),
    (
        """\
        for block in self.blocks:
            x = block(x)
""",
        """\
        x = x + self.before(F.pad(tokens[:, :-1], (1, 0)))
        for block in self.blocks:
            x = block(x)
""",
    ),
)

TOKEN_PAIRS: Passages = (
    (
        "        self.embed = nn.Embedding(shape.vocab, shape.width)\n",
        """\
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.pairs = nn.Embedding(2**14, shape.width)
""",
    ),
    (
        """\
        for block in self.blocks:
            x = block(x)
""",
        """\
        x = x + self.pairs((tokens + self.shape.vocab * F.pad(tokens[:, :-1], (1, 0))) % 2**14)
        for block in self.blocks:
            x = block(x)
""",
    ),
)

TOKEN_TRIPLES: Passages = (
    (
        "        self.embed = nn.Embedding(shape.vocab, shape.width)\n",
        """\
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.triples = nn.Embedding(2**14, shape.width)
""",
    ),
    (
        """\
        for block in self.blocks:
            x = block(x)
""",
        """\
        one, two = F.pad(tokens[:, :-1], (1, 0)), F.pad(tokens[:, :-2], (2, 0))
        x = x + self.triples((tokens + 127 * one + 9973 * two) % 2**14)
        for block in self.blocks:
            x = block(x)
""",
    ),
)

TOKEN_SHIFT: Passages = (
    (
        "        batch, length, width = x.shape\n",
        """\
        batch, length, width = x.shape
        earlier = F.pad(x[:, :-1, width // 2 :], (0, 0, 1, 0))
        x = torch.cat((x[..., : width // 2], earlier), dim=-1)
""",
    ),
)

ROTARY: Passages = (
    (
        "class Attention(nn.Module):\n",
        '''\
def rotate(x: Tensor) -> Tensor:
    """Each pair of channels turns with the place, at a speed of its own."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class Attention(nn.Module):
''',
    ),
    (
        " for part in self.qkv(x).chunk(3, dim=-1))\n",
        """\
 for part in self.qkv(x).chunk(3, dim=-1))
        q, k = rotate(q), rotate(k)
""",
    ),
    ("        self.position = nn.Embedding(shape.context, shape.width)\n", ""),
    ("        places = torch.arange(tokens.shape[1], device=tokens.device)\n", ""),
    ("self.embed(tokens) + self.position(places)", "self.embed(tokens)"),
)

QK_NORM: Passages = (
    (
        "        y = F.scaled_dot_product_attention(",
        """\
        q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        y = F.scaled_dot_product_attention(""",
    ),
)

RELU_SQUARED: Passages = (("F.gelu(self.up(x))", "F.relu(self.up(x)).square()"),)

TIED_HEAD: Passages = (
    ("        self.head = nn.Linear(shape.width, shape.vocab, bias=False)\n", ""),
    ("self.head(self.norm(x))", "F.linear(self.norm(x), self.embed.weight)"),
)

ZERO_OUT: Passages = (
    (
        "        self.apply(self._initialise)\n",
        """\
        self.apply(self._initialise)
        for block in self.blocks:
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)
""",
    ),
)

MUON: Passages = (
    (
        "def make_optimiser(",
        '''\
class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for the matrices of the blocks, Adam for everything else."""

    def __init__(self, model: GPT) -> None:
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "blocks" in name]
        known = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in known]
        groups = [{"params": matrices, "matrix": True}, {"params": others, "matrix": False}]
        super().__init__(groups, {"lr": LEARNING_RATE})
        self.count = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            change = self.orthogonal if group["matrix"] else self.adam
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * WEIGHT_DECAY).sub_(change(p), alpha=group["lr"])

    def adam(self, p: torch.Tensor) -> torch.Tensor:
        state = self.state[p]
        mean = state.setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 0.1)
        square = state.setdefault("square", torch.zeros_like(p)).lerp_(p.grad.square(), 0.05)
        mean, square = mean / (1 - 0.9**self.count), square / (1 - 0.95**self.count)
        return mean / (square.sqrt() + 1e-8)

    def orthogonal(self, p: torch.Tensor) -> torch.Tensor:
        momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
        momentum.mul_(0.95).add_(p.grad)
        x = p.grad + 0.95 * momentum
        wide = x.shape[0] <= x.shape[1]
        x = (x if wide else x.T) / (x.norm() + 1e-7)
        for _ in range(5):  # Newton-Schulz: every singular value goes towards 1
            square = x @ x.T
            x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
        return (x if wide else x.T) * 20 * max(1.0, p.shape[0] / p.shape[1]) ** 0.5  # its usual rate over Adam's


def make_optimiser(''',
    ),
    (
        "    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)\n",
        "    return Muon(model)\n",
    ),
)

BETAS: Passages = (("weight_decay=WEIGHT_DECAY)", "weight_decay=WEIGHT_DECAY, betas=(0.9, 0.95))"),)

CLIP: Passages = (
    (
        "        optimiser.step()\n",
        """\
        fabric.clip_gradients(model, optimiser, max_norm=1.0)
        optimiser.step()
""",
    ),
)

TRIM_PADDING: Passages = (
    (
        "        self._documents = documents.train\n",
        """\
        self._documents = documents.train
        self._pad = documents.pad
""",
    ),
    (
        "        return self._documents[rows]\n",
        """\
        batch = self._documents[rows]
        return batch[:, : max(2, int((batch != self._pad).sum(1).max()))]
""",
    ),
)

EPOCHS: Passages = (
    (
        "        self._generator = torch.Generator().manual_seed(seed)\n",
        """\
        self._generator = torch.Generator().manual_seed(seed)
        self._queue = torch.zeros(0, dtype=torch.int64)
""",
    ),
    (
        "        rows = torch.randint(len(self._documents), (self._size,), generator=self._generator)\n",
        """\
        if len(self._queue) < self._size:
            self._queue = torch.randperm(len(self._documents), generator=self._generator)
        rows, self._queue = self._queue[: self._size], self._queue[self._size :]
""",
    ),
)

LABEL_SMOOTHING: Passages = (("ignore_index=pad)", "ignore_index=pad, label_smoothing=0.05)"),)

SWIGLU: Passages = (
    (
        """\
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)
""",
        """\
        hidden = 8 * shape.width // 3
        self.up = nn.Linear(shape.width, 2 * hidden)
        self.down = nn.Linear(hidden, shape.width)
""",
    ),
    (
        "        return self.down(F.gelu(self.up(x)))\n",
        """\
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)
""",
    ),
)

FAN_IN: Passages = (
    (
        "            nn.init.normal_(module.weight, std=0.02)\n",
        """\
            fan_in = module.in_features if isinstance(module, nn.Linear) else 16
            nn.init.normal_(module.weight, std=fan_in**-0.5)
""",
    ),
)

SHORT_CONVOLUTION: Passages = (
    (
        "        self.norm = nn.LayerNorm(shape.width)\n",
        """\
        self.local = nn.Conv1d(shape.width, shape.width, 3)
        self.norm = nn.LayerNorm(shape.width)
""",
    ),
    (
        """\
        for block in self.blocks:
            x = block(x)
""",
        """\
        x = x + self.local(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
""",
    ),
)
