"""A tiny text model in a folder, its embeddings by plain transformers, and embeddings that need no model."""

import json

import torch
from tiny import tiny_bert_config, tiny_tokenizer
from transformers import AutoModel, AutoTokenizer, BertModel

CAPTIONS = (
    "a dog barking",
    "the rain is heard",
    "a bell then a siren and then a low far drum",
    "bird",
    "a loud cat near the dog",
    "an high bell ringing in rain",
    "quiet rain",
)
POOLINGS = ("mean", "cls", "last")


def write_text_model(folder, seed=0, model=None):
    """A BERT of width 16 with its tokenizer."""
    torch.manual_seed(seed)
    (model or BertModel(tiny_bert_config())).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_pooling(folder, config, modules=("Transformer", "Pooling", "Normalize"), package="models"):
    """The files by which sentence-transformers says what follows the encoder."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
    types = [{"type": f"sentence_transformers.{package}.{name}", "path": paths[name]} for name in modules]
    write_json(folder / "modules.json", types)
    write_json(folder / "1_Pooling" / "config.json", config)


@torch.no_grad()
def plain_embedding(folder, text, pooling, max_length=32):
    """(D,) embedding of one text, alone, by a model of transformers."""
    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=max_length, return_tensors="pt")
    states = model(**inputs).last_hidden_state[0]  # (L, D)
    return {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]


class LetterEmbedder:
    """Embeds a caption as its letters' codes; counts what it is asked for, and fails at one of the calls."""

    def __init__(self, size=5, fails_at=None):
        self.size = size
        self.fails_at = fails_at
        self.calls = []

    def __call__(self, captions):
        if len(self.calls) == self.fails_at:
            raise InterruptedError("the power is cut")
        self.calls.append(list(captions))
        return torch.stack([self.row(caption) for caption in captions])

    def row(self, caption):
        codes = [float(ord(letter)) for letter in caption.ljust(self.size)[-self.size :]]
        return torch.tensor(codes) / 64 + len(caption)


def contents(folder):
    """File name -> bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
