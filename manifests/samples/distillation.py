# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "torch"]
# ///
"""Distils the digits-cnn: a network with a sixtieth of its weights learns from its answers, and is packaged instead.

Usage: python distillation.py --out distilled [--teacher trained/weights.safetensors]
       conch package distillation.py:net --weights distilled/weights.safetensors --data distilled/test.npz \
         --labels distilled/labels.txt --name digits-cnn --version 3 -o models

The teacher is trained first where its weights are not given. Writes weights.safetensors (the student's), labels.txt and
test.npz, and prints what teacher, student, and the same student trained without the teacher score on held-out digits.

For your own model: replace `Student`, `teacher_sample` and the data; `train` stays as it is. The teacher is asked once,
not in every epoch. It can also answer for inputs that nobody has labelled: leave the labels' part of the loss (HARD)
out for those.
"""

# mypy: allow-subclassing-any
import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors.torch import load_file, save_file

SEED = 0
EPOCHS, BATCH, LEARNING_RATE = 12, 32, 3e-3
TEMPERATURE = 4.0
"""What both sides' logits are divided by: it makes visible which wrong digits the teacher finds likely, too."""
HARD = 0.1
"""Share of the true labels in the loss; the rest is the teacher's."""


class Student(torch.nn.Module):
    """As the teacher, an eighth as wide: 6,800 weights. The same input and output, so that clients need not change."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.second = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.hidden = torch.nn.Linear(8 * 7 * 7, 16)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """`image` [batch, 1, 28, 28]; `logits` [batch, 10]."""
        pool = torch.nn.functional.max_pool2d
        x = pool(self.first(image).relu(), 2)
        x = pool(self.second(x).relu(), 2)
        return {"logits": self.head(self.hidden(x.flatten(1)).relu())}


net = Student
"""What `conch package distillation.py:net` takes."""


def teacher_sample() -> ModuleType:
    """digits-cnn/train.py; the folder has no name that `import` knows."""
    spec = importlib.util.spec_from_file_location("digits_cnn", Path(__file__).parent / "digits-cnn" / "train.py")
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    return sample


def answers(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Its logits, without gradients."""
    module.eval()
    with torch.no_grad():
        logits: torch.Tensor = module(images)["logits"]
    return logits


def loss(logits: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor | None) -> torch.Tensor:
    """Cross-entropy with the labels; where the teacher's logits are given, mostly its distance from these.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (2015), equation 2 and section 2; the square of
    the temperature keeps the two parts' gradients comparable.
    """
    hard = torch.nn.functional.cross_entropy(logits, labels)
    if taught is None:
        return hard
    soft = torch.nn.functional.kl_div(
        (logits / TEMPERATURE).log_softmax(dim=-1),
        (taught / TEMPERATURE).softmax(dim=-1),
        reduction="batchmean",
    )
    return HARD * hard + (1 - HARD) * TEMPERATURE**2 * soft


def train(images: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor | None = None) -> Student:
    """A student; with the teacher's logits [samples, 10] it learns from these. The same seed and batches either way."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    student = Student()
    optimiser = torch.optim.Adam(student.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    student.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            error = loss(student(images[rows])["logits"], labels[rows], None if taught is None else taught[rows])
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
        schedule.step()
    return student.eval()


def weights_of(module: torch.nn.Module) -> int:
    """How many."""
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    """Train teacher and students, write the student, print the scores."""
    parser = argparse.ArgumentParser(description="Distil the digits-cnn sample.")
    parser.add_argument("--out", type=Path, default=Path("distilled"), help="folder to write to")
    parser.add_argument("--teacher", type=Path, help="weights.safetensors of digits-cnn; trained here if not given")
    options = parser.parse_args()
    out: Path = options.out
    sample = teacher_sample()
    (images, labels), (test_images, test_labels) = sample.data()
    torch.manual_seed(sample.SEED)
    teacher = sample.Net()
    if options.teacher is None:
        sample.fit(teacher, sample.EPOCHS)
    else:
        teacher.load_state_dict(load_file(options.teacher))
    student = train(images, labels, answers(teacher, images))
    plain = train(images, labels)
    out.mkdir(parents=True, exist_ok=True)
    save_file(student.state_dict(), out / "weights.safetensors")
    np.savez_compressed(out / "test.npz", image=test_images.numpy(), target=test_labels.numpy())
    (out / "labels.txt").write_text("\n".join(sample.LABELS) + "\n")
    for name, module in (("teacher", teacher), ("student", student), ("student without the teacher", plain)):
        print(f"{name}: accuracy {sample.accuracy(module):.3f}, {weights_of(module):,} weights")


if __name__ == "__main__":
    main()
