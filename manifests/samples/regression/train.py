# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Trains a regression: one number from ten, by a multilayer perceptron.

Usage: python train.py --out trained

Input `features` FP32 [batch, 10]; output `value` FP32 [batch, 1]. The data are Friedman's first function,
10 sin(pi a b) + 20 (c - 0.5)^2 + 10 d + 5 e of the first five features, with noise; the other five mean nothing.
Writes weights.safetensors and test.npz (held-out inputs and their `target`), and prints R2 on these.
"""

# mypy: allow-subclassing-any
import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
SAMPLES, HELD_OUT = 5000, 1000
EPOCHS, BATCH = 40, 100


class Net(torch.nn.Module):
    """Two hidden layers of 64. What the values are centred and scaled with is part of the module, so of the service."""

    def __init__(self) -> None:
        super().__init__()
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        self.layers = torch.nn.Sequential(linear(10, 64), relu(), linear(64, 64), relu(), linear(64, 1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The key of the dict is the output's name."""
        return {"value": self.layers(features) * self.scale + self.mean}


net = Net
"""What `conch package train.py:net` takes."""


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Features [samples, 10] and values [samples, 1]."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(SAMPLES, 10, noise=0.5, random_state=SEED)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


def main() -> None:
    """Train, write, print the score."""
    parser = argparse.ArgumentParser(description="Train the regression sample.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    x, y = data()
    train, test = slice(HELD_OUT, None), slice(HELD_OUT)
    module = Net()
    module.mean[:], module.scale[:] = y[train].mean(), y[train].std()
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(SAMPLES - HELD_OUT).split(BATCH):
            errors = (module(x[train][rows])["value"] - y[train][rows]) / module.scale
            optimiser.zero_grad()
            errors.square().mean().backward()
            optimiser.step()
        schedule.step()
    with torch.no_grad():
        missed = (module(x[test])["value"] - y[test]).square().sum()
    spread = (y[test] - y[test].mean()).square().sum()
    out.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez(out / "test.npz", features=x[test].numpy(), target=y[test].numpy())
    print(f"regression: R2 {float(1 - missed / spread):.3f} on {HELD_OUT} held-out samples")


if __name__ == "__main__":
    main()
