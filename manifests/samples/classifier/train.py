# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Trains a classifier of drawn digits (8 x 8 pixels): a multilayer perceptron with a softmax.

Usage: python train.py --out trained

Input `pixels` FP32 [batch, 64], 0 (white) to 16 (black); output `probabilities` FP32 [batch, 10]. Writes
weights.safetensors, labels.txt and test.npz (held-out inputs and their `target`), and prints the accuracy on these.
"""

# mypy: allow-subclassing-any
import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EPOCHS, BATCH = 12, 32
PIXEL_MAX = 16.0


class Net(torch.nn.Module):
    """Two hidden layers of 512."""

    def __init__(self) -> None:
        super().__init__()
        linear, relu, dropout = torch.nn.Linear, torch.nn.ReLU, torch.nn.Dropout
        self.hidden = torch.nn.Sequential(linear(64, 512), relu(), dropout(0.2), linear(512, 512), relu())
        self.head = linear(512, len(LABELS))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """What is trained."""
        scores: torch.Tensor = self.head(self.hidden(pixels / PIXEL_MAX))
        return scores

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is served; the key of the dict is the output's name."""
        return {"probabilities": self.logits(pixels).softmax(dim=-1)}


net = Net
"""What `conch package train.py:net` takes."""


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """(pixels, digits) to train with, and a fifth that is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels.astype(np.float32), digits, test_size=0.2, random_state=SEED, stratify=digits
    )
    return (torch.tensor(train_x), torch.tensor(train_y)), (torch.tensor(test_x), torch.tensor(test_y))


def main() -> None:
    """Train, write, print the score."""
    parser = argparse.ArgumentParser(description="Train the classifier sample.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    (x, y), (test_x, test_y) = data()
    module = Net()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(module.logits(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    module.eval()
    with torch.no_grad():
        right = module(test_x)["probabilities"].argmax(dim=-1) == test_y
    out.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez(out / "test.npz", pixels=test_x.numpy(), target=test_y.numpy())
    (out / "labels.txt").write_text("\n".join(LABELS) + "\n")
    print(f"classifier: accuracy {float(right.float().mean()):.3f} on {len(test_y)} held-out digits")


if __name__ == "__main__":
    main()
