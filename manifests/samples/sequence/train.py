# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Trains a classifier of sequences: an LSTM of two layers that reads a drawn digit row by row.

Usage: python train.py --out trained

Input `steps` FP32 [batch, 8, 8]: eight steps of eight numbers, 0 (white) to 16 (black); output `logits` FP32
[batch, 10], of which packaging makes LABEL and SCORE. Writes weights.safetensors, labels.txt and test.npz (held-out
inputs and their `target`), and prints the accuracy on these.
"""

# mypy: allow-subclassing-any
import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EPOCHS, BATCH = 16, 32
PIXEL_MAX = 16.0


class Net(torch.nn.Module):
    """Two layers of 64; the last step's state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 64, num_layers=2, batch_first=True)
        self.hidden = torch.nn.Linear(64, 64)
        self.head = torch.nn.Linear(64, len(LABELS))

    def forward(self, steps: torch.Tensor) -> dict[str, torch.Tensor]:
        """The key of the dict is the output's name."""
        states, _ = self.lstm(steps / PIXEL_MAX)
        return {"logits": self.head(self.hidden(states[:, -1]).relu())}


net = Net
"""What `conch package train.py:net` takes."""


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """(steps, digits) to train with, and a fifth that is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels.astype(np.float32).reshape(-1, 8, 8), digits, test_size=0.2, random_state=SEED, stratify=digits
    )
    return (torch.tensor(train_x), torch.tensor(train_y)), (torch.tensor(test_x), torch.tensor(test_y))


def main() -> None:
    """Train, write, print the score."""
    parser = argparse.ArgumentParser(description="Train the sequence sample.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    (x, y), (test_x, test_y) = data()
    module = Net()
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(module(x[rows])["logits"], y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    module.eval()
    with torch.no_grad():
        right = module(test_x)["logits"].argmax(dim=-1) == test_y
    out.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez(out / "test.npz", steps=test_x.numpy(), target=test_y.numpy())
    (out / "labels.txt").write_text("\n".join(LABELS) + "\n")
    print(f"sequence: accuracy {float(right.float().mean()):.3f} on {len(test_y)} held-out digits")


if __name__ == "__main__":
    main()
