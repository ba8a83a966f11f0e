# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Trains the smallest of the samples: ten numbers in, ten numbers out, one hidden layer of twenty.

Usage: python train.py --out trained

Input `x` FP32 [batch, 10]; output `y` FP32 [batch, 10]. Writes weights.safetensors, example.npz (one batch of inputs)
and test.npz (held-out inputs and their `target`), and prints R2 on these.
"""

# mypy: allow-subclassing-any
import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
SAMPLES, HELD_OUT = 4000, 800
EPOCHS, BATCH = 40, 100


class Net(torch.nn.Module):
    """10 -> 20 -> 10, without anything in between that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(10, 20)
        self.out = torch.nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The key of the dict is the output's name."""
        return {"y": self.out(self.hidden(x))}


net = Net
"""What `conch package train.py:net` takes: a module, its class or a function that makes one."""


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets [samples, 10]: ten linear mixtures of the inputs, with noise that nobody can predict."""
    from sklearn.datasets import make_regression

    x, y = make_regression(SAMPLES, 10, n_informative=10, n_targets=10, noise=70.0, random_state=SEED)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y / y.std(axis=0), dtype=torch.float32)


def main() -> None:
    """Train, write, print the score."""
    parser = argparse.ArgumentParser(description="Train the linear sample.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    x, y = data()
    train, test = slice(HELD_OUT, None), slice(HELD_OUT)
    module = Net()
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(SAMPLES - HELD_OUT).split(BATCH):
            loss = torch.nn.functional.mse_loss(module(x[train][rows])["y"], y[train][rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        errors = (module(x[test])["y"] - y[test]).square().sum(dim=0)
    spread = (y[test] - y[test].mean(dim=0)).square().sum(dim=0)
    out.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez(out / "example.npz", x=x[train][:32].numpy())
    np.savez(out / "test.npz", x=x[test].numpy(), target=y[test].numpy())
    print(f"linear: R2 {float((1 - errors / spread).mean()):.3f} on {HELD_OUT} held-out samples")


if __name__ == "__main__":
    main()
