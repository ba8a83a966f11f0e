"""A classifier of sequences: an LSTM of two layers, its answer a named tuple."""

# mypy: allow-subclassing-any
from typing import NamedTuple

import torch


class Answer(NamedTuple):
    """Scores per class, and the state after the last step."""

    scores: torch.Tensor
    state: torch.Tensor


class Sequence(torch.nn.Module):
    """Reads [batch, 20, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 64, num_layers=2, batch_first=True)
        self.hidden = torch.nn.Linear(64, 32)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, steps: torch.Tensor) -> Answer:
        states, _ = self.lstm(steps)
        return Answer(self.head(self.hidden(states[:, -1]).relu()), states[:, -1])


net = Sequence
