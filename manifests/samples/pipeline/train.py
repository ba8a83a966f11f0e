# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Trains the network in the middle of the pipeline: which of three wines it is, by its analysis.

Usage: python train.py --out trained

Input `features` FP32 [batch, 13], each centred and scaled; output `logits` FP32 [batch, 3]. What they are centred and
scaled with goes into scale.npz, which the pipeline's step `preprocess` reads. Writes weights.safetensors and test.npz
(held-out features and their `target`) too, and the same samples as the pipeline sees them: records.npz (JSON, as a
laboratory sends it) and expected.npz (what the network makes of them). Prints the accuracy on these.
"""

# mypy: allow-subclassing-any
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
WINES = ("Barolo", "Grignolino", "Barbera")
EPOCHS = 200


class Net(torch.nn.Module):
    """One hidden layer of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(13, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The key of the dict is the output's name."""
        return {"logits": self.layers(features)}


net = Net
"""What `conch package train.py:net` takes."""


def main() -> None:
    """Train, write, print the score."""
    from sklearn.datasets import load_wine
    from sklearn.model_selection import train_test_split

    parser = argparse.ArgumentParser(description="Train the pipeline's network.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    wine = load_wine()
    readings, test_readings, target, test_target = train_test_split(
        wine.data.astype(np.float32), wine.target, test_size=0.3, random_state=SEED, stratify=wine.target
    )
    mean, deviation = readings.mean(axis=0), readings.std(axis=0)
    x, y = torch.tensor((readings - mean) / deviation), torch.tensor(target)
    test_x = torch.tensor((test_readings - mean) / deviation)
    module = Net()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2, weight_decay=1e-3)
    for _ in range(EPOCHS):
        loss = torch.nn.functional.cross_entropy(module(x)["logits"], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        probabilities = module(test_x)["logits"].softmax(dim=-1).numpy()
    likeliest = probabilities.argmax(axis=-1)
    names = list(wine.feature_names)
    records = [json.dumps(dict(zip(names, map(float, row), strict=True))) for row in test_readings]
    out.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez(out / "scale.npz", names=np.array(names), mean=mean, deviation=deviation)
    np.savez(out / "test.npz", features=test_x.numpy(), target=test_target)
    np.savez(out / "records.npz", RECORD=np.array(records)[:, None])
    np.savez(
        out / "expected.npz",
        WINE=np.array(WINES)[likeliest][:, None],
        CONFIDENCE=probabilities.max(axis=-1, keepdims=True),
    )
    print(f"pipeline: accuracy {(likeliest == test_target).mean():.3f} on {len(test_target)} held-out wines")


if __name__ == "__main__":
    main()
