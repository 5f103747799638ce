"""Train the GPT for as long as the budget lasts, then save it."""

from __future__ import annotations

import glass
import objective
import torch
from data import Batches, Documents
from lightning_fabric import Fabric
from model import GPT, save, shape_for

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
REPORT_EVERY = 10  # steps


def learning_rate(progress: float) -> float:
    """The learning rate when this share of the budget, from 0 to 1, is used."""
    return LEARNING_RATE


def make_optimiser(model: GPT) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def train(fabric: Fabric, model: torch.nn.Module, optimiser: torch.optim.Optimizer, batches: Batches, pad: int) -> None:
    """Steps until hardly more time is left than two of them take: enough for a claim and for saving."""
    step, before, slowest = 0, None, 0.0
    while True:
        left, total = glass.time_left()
        slowest = max(slowest, before - left) if before is not None and step > 1 else slowest
        before = left
        if left <= 2 * slowest or left <= 0.04 * total:
            return
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(1 - left / total)
        tokens = fabric.to_device(batches.next())
        loss = objective.loss(model(tokens[:, :-1]), tokens, pad)
        optimiser.zero_grad()
        fabric.backward(loss)
        optimiser.step()
        if step % REPORT_EVERY == 0:
            glass.metric("loss", loss.item(), step)
        step += 1


def main() -> None:
    args = glass.args
    torch.set_num_threads(args["threads"])
    on_gpu = args["device"].startswith("cuda")
    fabric = Fabric(accelerator="cuda" if on_gpu else "cpu", devices=1, precision="bf16-mixed" if on_gpu else "32-true")
    torch.manual_seed(args["init_seed"])
    model = GPT(shape_for(args["vocab"], args["context"], args["device"]))
    module, optimiser = fabric.setup(model, make_optimiser(model))

    documents = Documents(glass.data())  # the clock runs from here on
    batches = Batches(documents, args["data_seed"], args["device"])
    train(fabric, module, optimiser, batches, documents.pad)

    module.eval()
    held_out = fabric.to_device(documents.held_out)
    with torch.inference_mode():
        logits = module(held_out[:, :-1])
    glass.metric("claim_bits", objective.claim_bits(logits, held_out, documents.pad, documents.last_only))
    save(model, "out")


if __name__ == "__main__":
    main()
