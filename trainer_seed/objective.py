"""What is minimised, and what is claimed."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def loss(logits: Tensor, tokens: Tensor, pad: int) -> Tensor:
    """Mean cross-entropy of every token but the first, in nats. logits[:, j] predicts tokens[:, j + 1]."""
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=pad)


@torch.no_grad()
def claim_bits(logits: Tensor, tokens: Tensor, pad: int, last_only: bool) -> float:
    """Bits per target, over the targets that the judge looks at."""
    nats = F.cross_entropy(logits.float().transpose(1, 2), tokens[:, 1:], reduction="none")
    target = tokens[:, 1:] != pad
    if last_only:
        target &= target.cumsum(1) == target.sum(1, keepdim=True)
    return float(nats[target].mean()) / math.log(2)
