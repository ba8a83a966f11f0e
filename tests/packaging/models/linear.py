"""10 numbers in, 10 out, one hidden layer of 20."""

import torch

torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Linear(20, 10))
