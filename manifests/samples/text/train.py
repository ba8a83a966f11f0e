# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors", "scikit-learn", "scipy", "tokenizers", "torch"]
# ///
"""Trains a text classifier in the manner of BERT, from nothing: which library does a description belong to?

Usage: python train.py --out trained

The texts are real: the descriptions (docstrings) in the source files of numpy, scipy, scikit-learn and torch, as
installed here. Writes tokenizer.json, weights.safetensors, labels.txt, test.npz (held-out texts and their `target`) and
calibration.npz, and prints the accuracy. Other versions of the libraries have other texts, so other scores.
"""

# mypy: allow-subclassing-any
import argparse
import ast
import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEED = 0
LABELS = ("numpy", "scipy", "sklearn", "torch")
TEXTS_PER_LABEL, HELD_OUT, CALIBRATION = 1500, 0.15, 128
LETTERS_LEAST, LETTERS_MOST = 60, 250
VOCABULARY, LENGTH_MOST = 4000, 48
WIDTH, HEADS, LAYERS = 96, 4, 2
EPOCHS, BATCH = 5, 32


class Layer(torch.nn.Module):
    """Attention over the text's own tokens, then a feed-forward network, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.wide, self.narrow = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
        self.attention_norm, self.norm = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """`x` [batch, tokens, width]; `there` [batch, 1, 1, tokens]: which tokens are no padding."""
        batch, length, _ = x.shape
        query, key, value = (
            project(x).view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=there)
        x = self.attention_norm(x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH)))
        answer: torch.Tensor = self.norm(x + self.narrow(torch.nn.functional.gelu(self.wide(x))))
        return answer


class Net(torch.nn.Module):
    """Tokens and positions, two layers, and the mean over the tokens that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(VOCABULARY, WIDTH), torch.nn.Embedding(LENGTH_MOST, WIDTH)
        self.norm, self.dropout = torch.nn.LayerNorm(WIDTH), torch.nn.Dropout(0.1)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = torch.nn.Linear(WIDTH, len(LABELS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Takes what a tokenizer gives, under the names by which packaging knows it."""
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        x = self.dropout(self.norm(x))
        there = attention_mask.bool()[:, None, None, :]
        for layer in self.layers:
            x = layer(x, there)
        weight = attention_mask[:, :, None].to(x.dtype)
        return {"logits": self.head(self.dropout((x * weight).sum(dim=1) / weight.sum(dim=1)))}


net = Net
"""What `conch package train.py:net` takes."""


def descriptions(package: str, draw: random.Random) -> Iterator[str]:
    """The docstrings of an installed package, from its files in any order: they are parsed, not run."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; its descriptions are what is trained on")
    files = sorted(file for file in Path(spec.origin).parent.rglob("*.py") if "tests" not in file.parts)
    for file in draw.sample(files, len(files)):
        try:
            tree = ast.parse(file.read_bytes())
        except SyntaxError:
            continue  # written for a newer Python
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = " ".join((ast.get_docstring(node) or "").split())
                if len(text) >= LETTERS_LEAST:
                    yield text[:LETTERS_MOST]


def data() -> tuple[list[str], list[int]]:
    """Texts and the numbers of their labels, as many of each, shuffled."""
    draw = random.Random(SEED)  # noqa: S311 - nothing is to be kept secret
    pairs: list[tuple[str, int]] = []
    for number, package in enumerate(LABELS):
        texts: dict[str, int] = {}
        for text in descriptions(package, draw):
            texts[text] = number
            if len(texts) == TEXTS_PER_LABEL:
                break
        pairs += texts.items()
    draw.shuffle(pairs)
    return [text for text, _ in pairs], [number for _, number in pairs]


def trained_tokenizer(texts: list[str]) -> Tokenizer:
    """Pieces of words in lower case, `[CLS] ... [SEP]` around them.

    Byte pairs, not BERT's word pieces: those come out otherwise each time that they are trained.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["[PAD]", "[CLS]", "[SEP]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.enable_truncation(LENGTH_MOST)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106
    return tokenizer


def batches(tokenizer: Tokenizer, texts: list[str], targets: list[int]) -> list[tuple[torch.Tensor, ...]]:
    """Ids, mask and targets; texts of about the same length together, so that there is little padding."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    made = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        encoded = tokenizer.encode_batch([texts[row] for row in rows])
        ids, mask = ([getattr(each, name) for each in encoded] for name in ("ids", "attention_mask"))
        made.append((torch.tensor(ids), torch.tensor(mask), torch.tensor([targets[row] for row in rows])))
    return made


def accuracy(module: torch.nn.Module, held_out: list[tuple[torch.Tensor, ...]]) -> float:
    """Share of the texts whose label is the likeliest."""
    module.eval()
    with torch.no_grad():
        right = [module(ids, mask)["logits"].argmax(dim=-1) == target for ids, mask, target in held_out]
    return float(torch.cat(right).float().mean())


def main() -> None:
    """Train, write, print the score."""
    parser = argparse.ArgumentParser(description="Train the text sample.")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    out: Path = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    texts, targets = data()
    cut = int(len(texts) * HELD_OUT)
    tokenizer = trained_tokenizer(texts[cut:])
    module = Net()
    given = batches(tokenizer, texts[cut:], targets[cut:])
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=EPOCHS * len(given))
    for _ in range(EPOCHS):
        for number in torch.randperm(len(given)).tolist():
            ids, mask, target = given[number]
            loss = torch.nn.functional.cross_entropy(module(ids, mask)["logits"], target)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    held_out = batches(tokenizer, texts[:cut], targets[:cut])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    save_file(module.state_dict(), out / "weights.safetensors")
    np.savez(out / "test.npz", text=np.array(texts[:cut]), target=np.array(targets[:cut]))
    np.savez(out / "calibration.npz", text=np.array(texts[cut : cut + CALIBRATION]))
    (out / "labels.txt").write_text("\n".join(LABELS) + "\n")
    print(f"text: accuracy {accuracy(module, held_out):.3f} on {cut} held-out descriptions")


if __name__ == "__main__":
    main()
