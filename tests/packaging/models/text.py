"""An encoder in the manner of BERT: texts as token ids and their mask, of any length up to 64."""

# mypy: allow-subclassing-any
import torch

VOCABULARY, WIDTH, HEADS, LONGEST, CLASSES = 500, 64, 4, 64, 4


class Layer(torch.nn.Module):
    """Attention over the texts' own tokens, then a feed-forward network, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attention_norm, self.norm = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.wide, self.narrow = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            project(x).view(batch, length, HEADS, -1).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.attention_norm(x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1)))
        answer: torch.Tensor = self.norm(x + self.narrow(torch.nn.functional.gelu(self.wide(x))))
        return answer


class Text(torch.nn.Module):
    """Two layers, and the mean over the tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.positions = torch.nn.Embedding(LONGEST, WIDTH)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(2))
        self.head = torch.nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        there = attention_mask.bool()
        for layer in self.layers:
            x = layer(x, there[:, None, None, :])
        weight = attention_mask[:, :, None].float()
        return {"logits": self.head((x * weight).sum(1) / weight.sum(1))}


net = Text
