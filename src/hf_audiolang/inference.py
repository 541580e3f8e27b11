# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Python calls for sound files: classify them by words, embed them, search them by text.

    files, folders -> waveforms -> embeddings -> nearest labels, an embedding file, nearest files

The functions take a model folder (or Hub id), or a loaded model with its processor. Files that cannot be read are
named in `failed` and do not stop the others. A file longer than the feature extractor's limit is cut into equal
pieces whose embeddings are averaged (`AudioOptions.long_audio`). A model without text encoder embeds files and does
nothing else; an audio encoder alone gives its pooled output, normalised.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor, PreTrainedModel

from hf_audiolang.data.audio_files import AUDIO_SUFFIXES, find_audio_files
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.capabilities import AudioProcessor, check_text_input, has_text_encoder
from hf_audiolang.evaluation.embed import AudioOptions, embed_records, embed_texts
from hf_audiolang.evaluation.results import package_version
from hf_audiolang.evaluation.search import nearest
from hf_audiolang.evaluation.zero_shot import DEFAULT_TEMPLATES, embed_classes

EMBEDDING_SUFFIXES = (".safetensors", ".npz")
FINGERPRINT_VALUES = 64  # of each parameter; our choice: a millisecond for a small model
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class FileEmbeddings:
    """Embeddings of sound files.

    Attributes:
        files: N paths as text.
        embeds: (N, E) float32, unit-norm.
        model: folder or id of the model that made them.
        failed: one message per file that could not be read.
        fingerprint: `weights_fingerprint` of that model; "" when not known.
    """

    files: list[str]
    embeds: np.ndarray
    model: str = ""
    failed: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True)
class FileClassification:
    """Similarity of sound files to labels.

    Attributes:
        files: N paths as text.
        labels: C labels, as given.
        similarities: (N, C) cosine similarities to the labels' prompts.
        probabilities: (N, C) softmax over the labels of logit scale x similarity, what the zero-shot pipeline of
            transformers shows; None if the model has no logit scale.
        failed: one message per file that could not be read.
    """

    files: list[str]
    labels: list[str]
    similarities: np.ndarray
    probabilities: np.ndarray | None
    failed: tuple[str, ...] = ()

    def ranking(self, row: int) -> list[dict[str, float | str]]:
        """Labels of one file, best first, each with its similarity and, if there is one, its probability."""
        order = np.argsort(-self.similarities[row], kind="stable")
        names = [{"label": self.labels[c], "similarity": float(self.similarities[row, c])} for c in order]
        if self.probabilities is None:
            return names
        return [
            {**name, "probability": float(self.probabilities[row, c])} for name, c in zip(names, order, strict=True)
        ]


@dataclass(frozen=True)
class SearchHit:
    """A found file, its cosine similarity to the text, and the text."""

    file: str
    similarity: float
    text: str


@dataclass(frozen=True)
class FileSearch:
    """Result of a search: for each text its hits, best first, and the files that could not be read."""

    hits: list[list[SearchHit]]
    failed: tuple[str, ...] = ()


def classify_files(
    files: Iterable[str | Path],
    labels: Sequence[str],
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None = None,
    *,
    templates: Sequence[str] | str = DEFAULT_TEMPLATES,
    options: AudioOptions | None = None,
) -> FileClassification:
    """How well each label describes each sound file.

    Args:
        files: sound files, and folders that are searched for them.
        labels: words for the sounds to tell apart, such as "a dog barking".
        model: folder, Hub id, or a loaded model with its `processor`.
        processor: of a loaded model.
        templates: sentences with `{label}`, or the name of a set, see `zero_shot.TEMPLATE_SETS`.
        options: batching and the rule for long files.

    Raises:
        FileNotFoundError: if there are no files, or the model folder does not exist or has no weights.
        ValueError: if there are no labels, the model has no text encoder, or not one file is readable.
    """
    if not labels:
        raise ValueError("`labels` is empty, got 0 labels. Name at least one sound, such as 'a dog barking'.")
    model, processor = loaded_model(model, processor)
    check_text_input(model, processor)  # before the files are read
    embedded = embed_files(files, model, processor, options=options)
    similarities = embedded.embeds @ embed_classes(model, processor, labels, templates, label_text=str).T  # (N, C)
    scale = _logit_scale(model)
    logits = None if scale is None else torch.from_numpy(similarities) * scale
    probabilities = None if logits is None else logits.softmax(dim=-1).numpy()
    return FileClassification(embedded.files, list(labels), similarities, probabilities, embedded.failed)


def embed_files(
    files: Iterable[str | Path],
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None = None,
    *,
    options: AudioOptions | None = None,
) -> FileEmbeddings:
    """Unit-norm embeddings of sound files; of an audio encoder alone its `pooler_output`, normalised as well.

    So all embeddings compare by dot product. The pooled features as the encoder gave them, for a classifier of one's
    own, come from `evaluation.logistic_probe.clip_features`.

    Args:
        files: sound files, and folders that are searched for them.
        model: folder, Hub id, or a loaded model with its `processor`.
        processor: of a loaded model.
        options: batching and the rule for long files.

    Raises:
        FileNotFoundError: if there are no files, or the model folder does not exist or has no weights.
        ValueError: if not one file is readable.
    """
    records = [Record(id=str(path), audio=path) for path in find_audio_files(files)]
    model, processor = loaded_model(model, processor)
    options = replace(options or AudioOptions(), max_bad_fraction=1.0)  # the caller gets the failures, however many
    embedded = embed_records(model, processor, records, options=options)
    names = [record.id for record in embedded.records]
    return FileEmbeddings(
        names, embedded.embeds, model.config._name_or_path, tuple(embedded.skipped), weights_fingerprint(model)
    )


def search_files(
    texts: str | Sequence[str],
    files: Iterable[str | Path] | FileEmbeddings,
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None = None,
    *,
    top_k: int = 10,
    options: AudioOptions | None = None,
) -> FileSearch:
    """The sound files that are nearest to each text, by exact search.

    Args:
        texts: one description or several.
        files: sound files and folders, or embeddings of files made by the same model.
        model: folder, Hub id, or a loaded model with its `processor`.
        processor: of a loaded model.
        top_k: number of hits per text.
        options: batching and the rule for long files.

    Raises:
        FileNotFoundError: if there are no files, or the model folder does not exist or has no weights.
        ValueError: if the model has no text encoder, not one file is readable, or the embeddings were made by another
            model.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    model, processor = loaded_model(model, processor)
    check_text_input(model, processor)
    gallery = files if isinstance(files, FileEmbeddings) else embed_files(files, model, processor, options=options)
    _check_same_model(gallery, model)
    similarities, positions = nearest(embed_texts(model, processor, texts), gallery.embeds, top_k)
    hits = [
        [SearchHit(gallery.files[p], float(s), text) for s, p in zip(similarities[row], positions[row], strict=True)]
        for row, text in enumerate(texts)
    ]
    return FileSearch(hits, gallery.failed)


def load_model(model: str | Path, device: str | torch.device | None = None) -> tuple[PreTrainedModel, AudioProcessor]:
    """A model and its processor, in float32 and evaluation mode, on CUDA if there is one, else on the CPU.

    The processor of a model without text encoder, or of a folder without tokenizer, is its feature extractor.

    Args:
        model: folder that `save_pretrained` or a training run's export wrote, or a Hub id.
        device: where the model goes.

    Raises:
        FileNotFoundError: if the folder does not exist, or has no configuration or no weights.
        ValueError: if some weights are missing in the folder.
    """
    import hf_audiolang  # noqa: F401  registers this package's classes with the Auto classes

    name = str(model)
    check_model_folder(Path(name).expanduser(), name)
    try:
        loaded, loading = AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        takes_text = has_text_encoder(loaded) and _may_have_tokenizer(Path(name).expanduser())
        processor = (AutoProcessor if takes_text else AutoFeatureExtractor).from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"`model` {name!r} cannot be loaded: {str(error).splitlines()[0]} Give the folder that a training run "
            "exported (runs/NAME/model), or the id of a model on the Hub."
        ) from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(
            f"`model` {name!r} lacks {len(missing)} weights, the first is {missing[0]!r}. They would be random: "
            "export the model again."
        )
    return loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor


def loaded_model(
    model: str | Path | PreTrainedModel, processor: AudioProcessor | None
) -> tuple[PreTrainedModel, AudioProcessor]:
    """The model and processor themselves, or those of a folder or Hub id, by `load_model`.

    Raises:
        ValueError: if a loaded model comes without its processor.
    """
    if isinstance(model, str | Path):
        return load_model(model)
    if processor is None:
        raise ValueError(
            f"`processor` is missing beside a loaded {type(model).__name__}. Pass it too, or give the model's folder."
        )
    return model, processor


def weights_fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that tell the weights of models apart; equal wherever and under whatever name it lies.

    The start of a SHA-256 over name, shape, precision and up to 64 evenly spaced values of each parameter: cheap, and
    different after any training step. A model in another precision counts as another.
    """
    digest = sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        values = parameter.detach().flatten()
        sample = values[:: max(1, len(values) // FINGERPRINT_VALUES)][:FINGERPRINT_VALUES]
        digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_embeddings(embeddings: FileEmbeddings, path: str | Path) -> None:
    """Writes embeddings with their file names and model as `.safetensors` (names in the header) or `.npz`.

    Raises:
        ValueError: if the suffix is neither.
    """
    path = Path(path)
    check_embedding_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"model": embeddings.model, "fingerprint": embeddings.fingerprint, "package_version": package_version()}
    if path.suffix == ".npz":
        np.savez(path, embeddings=embeddings.embeds, files=np.array(embeddings.files), about=json.dumps(about))
    else:
        save_file({"embeddings": embeddings.embeds}, path, {"files": json.dumps(embeddings.files), **about})


def load_embeddings(path: str | Path) -> FileEmbeddings:
    """Embeddings that `save_embeddings` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the suffix is unknown.
    """
    path = Path(path)
    check_embedding_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` {str(path)!r} does not exist. Write it with `hf-audiolang embed`.")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            files, embeds, about = stored["files"].tolist(), stored["embeddings"], json.loads(str(stored["about"]))
    else:
        with safe_open(path, framework="np") as stored:
            embeds, about = stored.get_tensor("embeddings"), stored.metadata()
        files = json.loads(about["files"])
    return FileEmbeddings(files, embeds, about["model"], fingerprint=about.get("fingerprint", ""))


def check_embedding_path(path: str | Path) -> None:
    """Raises ValueError if the suffix of `path` is not one that embeddings are stored under."""
    if Path(path).suffix not in EMBEDDING_SUFFIXES:
        raise ValueError(
            f"`path` {str(path)!r} must end in one of {list(EMBEDDING_SUFFIXES)}. Choose one of the two formats."
        )


def _check_same_model(gallery: FileEmbeddings, model: nn.Module) -> None:
    """Refuses embeddings of another model: they may have the same width, but similarities would mean nothing."""
    fingerprint = weights_fingerprint(model)
    if gallery.fingerprint not in ("", fingerprint):
        raise ValueError(
            f"`files` holds embeddings of the model {gallery.model!r} with weights {gallery.fingerprint}, got the "
            f"model {model.config._name_or_path!r} with weights {fingerprint}. Search with the model that made them, "
            "or embed the files again."
        )


def _logit_scale(model: nn.Module) -> float | None:
    """What the model multiplies similarities with before a softmax, if it says so."""
    scale = getattr(model, "logit_scale", getattr(model, "logit_scale_a", None))  # the second is CLAP's name
    if scale is None:
        return None
    with torch.no_grad():
        return float(scale() if isinstance(scale, nn.Module) else scale.exp())


def _may_have_tokenizer(folder: Path) -> bool:
    """False for a folder on this machine that was saved with a feature extractor alone."""
    return not folder.is_dir() or any((folder / name).is_file() for name in TOKENIZER_FILES)


def check_model_folder(folder: Path, name: str, part: str = "model") -> None:
    """Refuses what cannot be a model before anything is imported or downloaded.

    Args:
        folder: where the model is, if it is on this machine.
        name: what messages call it.
        part: the folder in a training run's that would be right.
    """
    if folder.is_dir():
        inner = folder / part
        beside = folder.absolute().parent / part
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            advice = f"Did you mean {str(beside)!r}?" if (beside / "config.json").is_file() else "Merge it first."
            raise FileNotFoundError(f"`model` {name!r} is an adapter, no model of its own. {advice}")
        hint = f"Did you mean {str(inner)!r}?" if (inner / "config.json").is_file() else "Export the model again."
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"`model` {name!r} has no config.json, so it is no model folder. {hint}")
        if not any(file for pattern in WEIGHT_PATTERNS for file in folder.glob(pattern)):
            raise FileNotFoundError(f"`model` {name!r} has a config.json but no weights (model.safetensors). {hint}")
    elif folder.exists() or name.count("/") != 1 or name[0] in "./~":
        raise FileNotFoundError(
            f"`model` {name!r} is not a folder. Give the folder that a training run exported (runs/NAME/{part})."
        )


__all__ = [
    "AUDIO_SUFFIXES",
    "FileClassification",
    "FileEmbeddings",
    "FileSearch",
    "SearchHit",
    "check_embedding_path",
    "check_model_folder",
    "classify_files",
    "embed_files",
    "find_audio_files",
    "load_embeddings",
    "load_model",
    "loaded_model",
    "save_embeddings",
    "search_files",
    "weights_fingerprint",
]
