"""CoLES vectors of households (pytorch-lifestream 0.7); runs in an environment of its own.

Reads an ``.npz`` of events sorted by household and time, writes an ``.npz`` of household_id (N,)
and vectors (N, 128) float32. Started by ``run.py``; imports nothing of this project.
"""

import argparse
import itertools
import time

import numpy as np
import torch
from ptls.data_load.utils import collate_feature_dict
from ptls.frames.coles import CoLESModule
from ptls.frames.coles.coles_dataset import ColesDataset
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.nn import RnnSeqEncoder, TrxEncoder

DIM = 128
NUM_SLICES, MIN_EVENTS, MAX_EVENTS = 5, 5, 60
CATEGORICAL = {"category": 24, "department": 8, "brand": 2, "kind": 4, "weekday": 4}


def read_users(path: str) -> tuple[np.ndarray, list[dict[str, torch.Tensor]], dict[str, int]]:
    """Household ids, one feature dict each, and the size of every dictionary."""
    with np.load(path) as stored:
        events = {name: stored[name] for name in stored.files}
    ids, starts = np.unique(events["household_id"], return_index=True)
    bounds = [*starts.tolist(), len(events["household_id"])]
    users = []
    for first, last in itertools.pairwise(bounds):
        user = {name: torch.tensor(events[name][first:last]) for name in (*CATEGORICAL, "amount")}
        user["event_time"] = torch.tensor(events["event_time"][first:last])
        users.append(user)
    return ids, users, {name: int(events[name].max()) + 1 for name in CATEGORICAL}


def build(sizes: dict[str, int]) -> CoLESModule:
    """A GRU over embedded events, with the library's default head and loss."""
    encoder = TrxEncoder(
        embeddings={name: {"in": sizes[name], "out": dim} for name, dim in CATEGORICAL.items()},
        numeric_values={"amount": "identity"},
        embeddings_noise=0.003,
    )
    return CoLESModule(seq_encoder=RnnSeqEncoder(trx_encoder=encoder, hidden_size=DIM, type="gru"))


def train(module: CoLESModule, users: list[dict[str, torch.Tensor]], epochs: int, batch_size: int) -> None:
    """AdamW, one-cycle, for ``epochs`` passes over the households."""
    dataset = ColesDataset(users, SampleSlices(NUM_SLICES, MIN_EVENTS, MAX_EVENTS))
    num_steps = epochs * (len(users) // batch_size)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    module.train()
    for epoch in range(epochs):
        order, total = np.random.permutation(len(users)), 0.0
        for at in range(0, len(order) - batch_size + 1, batch_size):
            batch, classes = dataset.collate_fn([dataset[int(i)] for i in order[at : at + batch_size]])
            loss = module._loss(*module.shared_step(batch, classes))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}/{epochs} loss {total * batch_size / len(order):.4f}", flush=True)


@torch.no_grad()
def embed(module: CoLESModule, users: list[dict[str, torch.Tensor]]) -> np.ndarray:
    """(N, 128) float32, of every household's whole sequence."""
    module.eval()
    parts = [module(collate_feature_dict(users[at : at + 128])) for at in range(0, len(users), 128)]
    return torch.cat(parts).float().numpy()


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events")
    parser.add_argument("output")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    np.random.seed(given.seed)
    started = time.monotonic()
    ids, users, sizes = read_users(given.events)
    module = build(sizes)
    train(module, users, given.epochs, given.batch_size)
    np.savez(given.output, household_id=ids, vectors=embed(module, users))
    print(f"{len(ids)} households, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
