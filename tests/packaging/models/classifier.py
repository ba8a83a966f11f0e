"""Probabilities of ten classes from 64 numbers, and the likeliest class, as a dict."""

# mypy: allow-subclassing-any
import torch


class Classifier(torch.nn.Module):
    """A multilayer perceptron with a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(512, 512), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(512, 10)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        probabilities = self.head(self.body(pixels)).softmax(dim=-1)
        return {"probabilities": probabilities, "label": probabilities.argmax(dim=-1)}


net = Classifier
