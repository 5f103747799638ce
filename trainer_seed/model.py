"""A small GPT, and how it is stored and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Shape:
    vocab: int
    context: int
    layers: int = 3
    heads: int = 4
    width: int = 64
    dropout: float = 0.1


def shape_for(vocab: int, context: int, device: str) -> Shape:
    """What trains well in seconds on one CPU thread, or in a minute on a GPU."""
    if device.startswith("cuda"):
        return Shape(vocab, context, layers=6, heads=6, width=384)
    return Shape(vocab, context)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(shape.width), Attention(shape)
        self.norm2, self.mlp = nn.LayerNorm(shape.width), MLP(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.embed(tokens) + self.position(places))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def save(model: GPT, folder: str) -> None:
    """Weights, with the shape in the file's own header, so that one file is enough to load it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, Path(folder) / WEIGHTS, metadata={"shape": json.dumps(asdict(model.shape))})


def load(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    """predict(tokens: int64 [B, T]) -> float32 logits [B, T, vocab]."""
    path = Path(folder) / WEIGHTS
    with safe_open(path, framework="pt") as file:
        shape = Shape(**json.loads(file.metadata()["shape"]))
    model = GPT(shape)
    model.load_state_dict(load_file(path))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()

    @torch.inference_mode()
    def predict(tokens: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(tokens).to(device)).float().cpu().numpy()

    return predict
