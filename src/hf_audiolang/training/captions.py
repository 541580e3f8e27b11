# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Precomputed caption embeddings in a run: does the store fit the model, the data and the text tower?

folder -> TextStore -> same width and model as the config -> has every training caption -> agrees with the text tower
"""

import shutil
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from hf_audiolang.data.records import RecordDataset, dataset_captions
from hf_audiolang.data.text_embeddings import TextEmbedderSettings, TextStore, precompute
from hf_audiolang.data.text_shards import hash_caption
from hf_audiolang.evaluation.capabilities import AudioProcessor
from hf_audiolang.models.modeling_text import pool_text

from .config import RunConfig
from .outline import ModelOutline

_MOST_TOKENS = 8192  # tokenizers without a limit state 1e30


def open_text_store(config: RunConfig, outline: ModelOutline) -> TextStore | None:
    """The run's store, which must fit the model's config; None without one, and in a smoke run, which makes its own.

    Raises:
        FileNotFoundError: if there is no such folder.
        TextStoreError: if it is no complete store, or one of another width or model than the config says.
    """
    if config.data.text_embeddings is None or config.train.smoke:
        return None
    store = TextStore.open(config.data.text_embeddings)
    store.check_fits(outline.text_embedding_size, outline.text_embedding_model)
    return store


def ready_text_store(
    config: RunConfig,
    store: TextStore | None,
    model: PreTrainedModel,
    processor: AudioProcessor,
    train_data: RecordDataset,
    accelerator: Accelerator,
) -> TextStore | None:
    """The store as training reads it, once there is a model; compares it with the model's text tower if it has one.

    Raises:
        TextStoreError: if the text tower computes something else than what is stored.
    """
    if config.data.text_embeddings is None:
        return None
    has_tower = getattr(model.base_model, "text_model", None) is not None
    most_tokens = config.model.max_text_tokens if store is None else store.settings.max_tokens
    tower = tower_features(model.base_model, processor, most_tokens) if has_tower else None
    if store is None:
        store = _make_smoke_store(config, tower or _random_features(model), model, train_data, accelerator)
    if tower is not None:
        store.check_against(tower)
    return store


def training_captions(train_data: RecordDataset) -> Iterator[str]:
    """Every caption that may be drawn in training."""
    return (caption for captions in dataset_captions(train_data) for caption in captions if caption.strip())


def tower_features(
    system: PreTrainedModel, processor: AudioProcessor, max_tokens: int | None
) -> Callable[[list[str]], Tensor]:
    """The function captions -> (n, D) of a system's text tower: pooled, before the projection, on the CPU."""
    max_tokens = max_tokens or min(processor.tokenizer.model_max_length, _MOST_TOKENS)

    def embed(captions: list[str]) -> Tensor:
        inputs = processor.tokenizer(
            captions, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(system.device)
        was_training = system.training
        system.eval()
        with torch.no_grad():
            states = system.get_text_features(**inputs).last_hidden_state
        system.train(was_training)
        return pool_text(states, inputs["attention_mask"], system.config.text_pooling).float().cpu()

    return embed


def _make_smoke_store(
    config: RunConfig,
    embed: Callable[[list[str]], Tensor],
    model: PreTrainedModel,
    train_data: RecordDataset,
    accelerator: Accelerator,
) -> TextStore:
    """A small store in the smoke run's folder, of its own text tower or of drawn numbers."""
    folder = config.data.text_embeddings
    if accelerator.is_main_process and not config.train.resume:
        shutil.rmtree(folder, ignore_errors=True)
    accelerator.wait_for_everyone()
    name = model.config.text_embedding_model or "smoke"
    settings = TextEmbedderSettings(name, pooling=model.config.text_pooling, dtype="float32")
    store = precompute(training_captions(train_data), folder, settings, embed=embed)
    store.check_fits(model.config.text_embedding_size, model.config.text_embedding_model)
    return store


def _random_features(model: PreTrainedModel) -> Callable[[list[str]], Tensor]:
    """Numbers drawn from each caption's hash, where there is no text tower to ask."""

    def embed(captions: list[str]) -> Tensor:
        generators = (torch.Generator().manual_seed(int(hash_caption(caption)) >> 1) for caption in captions)
        return torch.stack([torch.randn(model.config.text_embedding_size, generator=draw) for draw in generators])

    return embed


__all__ = ["open_text_store", "ready_text_store", "tower_features", "training_captions"]
