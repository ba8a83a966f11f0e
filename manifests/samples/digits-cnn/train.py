# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Trains a convolutional network on drawn digits of 28 x 28 pixels (scikit-learn's 8 x 8 digits, scaled up).

Usage: python train.py --out trained

Input `image` FP32 [batch, 1, 28, 28], 0 (white) to 1 (black); output `logits` FP32 [batch, 10], of which packaging
makes LABEL and SCORE. Writes weights.safetensors, labels.txt and test.npz (held-out inputs and their `target`), and
prints the accuracy on these. `fit` trains the network further once channels were taken out of it (package-2.sh).
"""

# mypy: allow-subclassing-any
import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 28
EPOCHS, EPOCHS_OF_FINETUNING, BATCH = 5, 3, 32
PIXEL_MAX = 16.0


class Net(torch.nn.Module):
    """Two convolutions with pooling, two linear layers: 422,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 32, 3, padding=1)
        self.second = torch.nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = torch.nn.Linear(64 * 7 * 7, 128)
        self.head = torch.nn.Linear(128, len(LABELS))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """No width is written here as a number, so that layers may become narrower."""
        pool = torch.nn.functional.max_pool2d
        x = pool(self.first(image).relu(), 2)
        x = pool(self.second(x).relu(), 2)
        return {"logits": self.head(self.hidden(x.flatten(1)).relu())}


net = Net
"""What `conch package train.py:net` takes."""


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """(images, digits) to train with, and a fifth that is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / PIXEL_MAX
    images = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    train, test = train_test_split(np.arange(len(digits)), test_size=0.2, random_state=SEED, stratify=digits)
    labels = torch.tensor(digits)
    return (images[train], labels[train]), (images[test], labels[test])


def fit(module: torch.nn.Module, epochs: int = EPOCHS_OF_FINETUNING) -> None:
    """Train in place; `conch package --finetune train.py:fit` calls it with the pruned network."""
    torch.set_num_threads(1)
    (x, y), _ = data()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(module(x[rows])["logits"], y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def accuracy(module: torch.nn.Module) -> float:
    """On the held-out digits."""
    _, (x, y) = data()
    module.eval()
    with torch.no_grad():
        return float((module(x)["logits"].argmax(dim=-1) == y).float().mean())


def main() -> None:
    """Train, write, print the score."""
    parser = argparse.ArgumentParser(description="Train the digits-cnn sample.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    module = Net()
    fit(module, EPOCHS)
    _, (test_x, test_y) = data()
    out.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez_compressed(out / "test.npz", image=test_x.numpy(), target=test_y.numpy())
    (out / "labels.txt").write_text("\n".join(LABELS) + "\n")
    print(f"digits-cnn: accuracy {accuracy(module):.3f} on {len(test_y)} held-out digits")


if __name__ == "__main__":
    main()
