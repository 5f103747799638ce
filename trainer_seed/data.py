"""Documents and batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HELD_OUT = 12  # documents kept back for the trainer's own claim about its quality
BATCH_SIZE = {"cpu": 8, "cuda": 64}


class Documents:
    """The train split as the host sent it: one document a row, padded at its end."""

    def __init__(self, folder: str) -> None:
        tokens = torch.from_numpy(np.load(Path(folder) / "tokens.npy").astype(np.int64))
        meta = json.loads((Path(folder) / "meta.json").read_text())
        self.pad: int = meta["pad"]
        self.last_only = meta.get("targets", "all") == "last"  # judged on each document's last token alone
        held_out = min(HELD_OUT, len(tokens) // 10)
        self.held_out, self.train = tokens[:held_out], tokens[held_out:]


class Batches:
    """Uniform random documents, for as long as one asks."""

    def __init__(self, documents: Documents, seed: int, device: str) -> None:
        self._documents = documents.train
        self._size = BATCH_SIZE[device.split(":")[0]]
        self._generator = torch.Generator().manual_seed(seed)

    def next(self) -> Tensor:
        rows = torch.randint(len(self._documents), (self._size,), generator=self._generator)
        return self._documents[rows]
