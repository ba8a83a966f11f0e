"""A convolutional network for pictures of 28 x 28."""

# mypy: allow-subclassing-any
import torch


class Digits(torch.nn.Module):
    """Two convolutions, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 32, 3)
        self.norm = torch.nn.BatchNorm2d(32)
        self.second = torch.nn.Conv2d(32, 64, 3)
        self.hidden = torch.nn.Linear(64 * 5 * 5, 128)
        self.head = torch.nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(self.norm(self.first(image)).relu(), 2)
        x = torch.nn.functional.max_pool2d(self.second(x).relu(), 2)
        hidden: torch.Tensor = self.head(self.hidden(x.flatten(1)).relu())
        return hidden


net = Digits
