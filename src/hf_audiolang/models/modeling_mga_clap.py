# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""MGA-CLAP: clips and captions as sums of codewords that both share, frames that can be compared with words (3.1).

clip -> audio encoder -> frames (B, T', D') -> projection -> (B, T', E) \
                                                                         codebook -> one vector each -> loss
caption -> text encoder -> words (B, L, D) -> projection -> (B, L, E)   /

a frame's similarity to a caption: cosine of the projected frame and the caption's one vector
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple, logging

from .configuration_mga_clap import MgaClapConfig
from .layers_codebook import MANY_DEAD, SharedCodebook
from .layers_logit_scale import TemperatureScale
from .layers_pair_scores import PAIR_SCORES
from .layers_pooling import masked_mean, unit_rows
from .losses_distributed import gather_padded, gather_rows, max_over_processes, process_rank, world_size
from .losses_hard_negative import embedding_regularizer, hard_negative_contrastive_loss
from .modeling_audio_encoders import build_audio_encoder
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput, AudioFrameOutput, AudioTextOutput, WordFeatureOutput
from .modeling_text import build_text_model, takes_token_types

logger = logging.get_logger(__name__)

GUARD_STEPS = 50  # steps after which unused codewords are looked for


class FeatureProjection(nn.Module):
    """Frames or words into the shared space, one by one: (..., D) -> (..., E), not normalised (4.1, authors' code)."""

    def __init__(self, input_size: int, output_size: int):
        super().__init__()
        self.input_norm = nn.LayerNorm(input_size)
        self.fc1 = nn.Linear(input_size, output_size)
        self.hidden_norm = nn.LayerNorm(output_size)
        self.fc2 = nn.Linear(output_size, output_size)

    def forward(self, features: Tensor) -> Tensor:
        """Returns (..., E)."""
        return self.fc2(self.hidden_norm(F.gelu(self.fc1(self.input_norm(features)))))


class MgaClapPreTrainedModel(StrictTowersMixin, PreTrainedModel):
    """Weight initialisation and loading of all classes with a MGA-CLAP configuration."""

    config: MgaClapConfig
    base_model_prefix = "mga_clap"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["HtsatBlock", "BertLayer"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # of a projection; the affinity divisor fits torch's own scale
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, SharedCodebook):
            init.normal_(module.weight)
            init.zeros_(module.is_used)
        elif isinstance(module, TemperatureScale):
            init.constant_(module.temperature, self.config.temperature_init_value)


class MgaClapModel(MgaClapPreTrainedModel):
    """Clips, captions, frames and words as unit vectors in one space; `return_loss=True` is the whole objective.

    Works in the zero-shot-audio-classification pipeline, and frame by frame in zero-shot-sound-event-detection and
    audio-grounding. With an `aggregation` that scores pairs (`config.scores_pairs`) the logits are those scores, and
    the embeddings of clips and captions are the normalised means of their frames and words, an approximation.

    Example:
        >>> audio = {"spec_size": 64, "num_mel_bins": 16, "window_size": 2, "depths": [1, 1], "hidden_size": 16,
        ...          "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 8, "locality_blocks": 1}
        >>> text = {"model_type": "bert", "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 1,
        ...         "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = MgaClapConfig(audio_config=audio, text_config=text, projection_dim=20, num_codewords=12,
        ...                        affinity_divisor=20, special_token_ids=[0, 1, 2])
        >>> model = MgaClapModel(config).eval()
        >>> outputs = model(torch.tensor([[1, 7, 9, 2]]), torch.randn(3, 98, 16))
        >>> outputs.logits_per_audio.shape
        torch.Size([3, 1])
    """

    def __init__(self, config: MgaClapConfig):
        super().__init__(config)
        width = config.projection_dim
        self.audio_model = build_audio_encoder(config.audio_config)
        self.text_model = build_text_model(config.text_config)
        self.audio_projection = FeatureProjection(config.audio_config.frame_feature_size, width)
        self.text_projection = FeatureProjection(config.text_config.hidden_size, width)
        self.codebook = _codebook(config) if config.aggregation == "codebook" else None
        self.logit_scale = TemperatureScale(config.temperature_min)
        self._step = None  # of the training loop that tells it
        # every process notes what its own clips and captions use
        self._ddp_params_and_buffers_to_ignore = ["codebook.is_used"]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embedding of the text encoder."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioEncoderOutput:
        """Embeds clips.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: `output_hidden_states`, `output_attentions`; others are ignored.

        Returns:
            The encoder's output with `pooler_output` (B, E), the unit-norm clip embeddings.
        """
        output = self.audio_model(input_features, input_features_mask, **{**kwargs, "return_dict": True})
        frames = self.audio_projection(output.frame_features)
        output.pooler_output = self._aggregate(frames, output.frame_mask, "neg_inf")[0]
        return output

    @can_return_tuple
    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Embeds captions.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L) True at real tokens, or None when all are.
            **kwargs: further inputs of the text encoder, such as `token_type_ids`.

        Returns:
            The text encoder's output with `pooler_output` (B, E), the unit-norm caption embeddings.
        """
        output = self._run_text_model(input_ids, attention_mask, kwargs)
        words = self.text_projection(output.last_hidden_state)
        pooled = self._aggregate(words, self.word_mask(input_ids, attention_mask), self.config.text_mask_mode)[0]
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=pooled,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def get_audio_frame_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioFrameOutput:
        """Embeds every output frame: the projected frame itself, or what the codebook makes of it (`frame_mode`).

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: ignored.

        Returns:
            Unit-norm frames (B, T', E) with their mask; frame k covers [k, k + 1) / `audio_config.frame_rate_hz` s.
        """
        frames, frame_mask = self.frame_embeddings(input_features, input_features_mask)
        if self.config.frame_mode == "codebook":
            codebook = self._need_codebook()
            frames = (codebook.frame_weights(frames) @ codebook.weight.float()).to(frames.dtype)
        frame_features = _unit(frames) * frame_mask.unsqueeze(-1)
        return AudioFrameOutput(frame_features=frame_features, frame_mask=frame_mask)

    def get_word_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> WordFeatureOutput:
        """Embeds every word, or part of one, in its context; arguments as `get_text_features`."""
        words, word_mask = self.word_embeddings(input_ids, attention_mask, **kwargs)
        return WordFeatureOutput(word_features=_unit(words) * word_mask.unsqueeze(-1), word_mask=word_mask)

    def get_codeword_weights(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Which codewords clips, or captions, are sums of: (B, M), rows of sum 1, many entries may be 0.

        Args:
            input_ids: (B, L) token ids; or else `input_features`.
            attention_mask: (B, L) True at real tokens, or None when all are.
            input_features: (B, T, F) log-mel; or else `input_ids`.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: further inputs of the text encoder, such as `token_type_ids`.

        Raises:
            ValueError: if the model has no codebook, or not exactly one of the two inputs is given.
        """
        self._need_codebook()
        if (input_ids is None) == (input_features is None):
            raise ValueError(
                "Exactly one of `input_ids` and `input_features` is needed, got "
                f"{'none' if input_ids is None else 'both'}. Ask for clips and captions one after the other."
            )
        if input_ids is None:
            return self._aggregate(*self.frame_embeddings(input_features, input_features_mask), "neg_inf")[1]
        words = self.word_embeddings(input_ids, attention_mask, **kwargs)
        return self._aggregate(*words, self.config.text_mask_mode)[1]

    def frame_embeddings(
        self, input_features: Tensor, input_features_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Projected frames (B, T', E), not normalised, and their mask (B, T')."""
        output = self.audio_model(input_features, input_features_mask)
        return self.audio_projection(output.frame_features), output.frame_mask

    def word_embeddings(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Projected tokens (B, L, E), not normalised, and which of them are words (B, L)."""
        output = self._run_text_model(input_ids, attention_mask, kwargs)
        return self.text_projection(output.last_hidden_state), self.word_mask(input_ids, attention_mask)

    def word_mask(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Bool (B, L), True at tokens that are words: real and not special."""
        special = torch.tensor(self.config.special_token_ids, device=input_ids.device)
        is_word = ~torch.isin(input_ids, special)
        return is_word if attention_mask is None else is_word & attention_mask.bool()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        clip_ids: Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> AudioTextOutput:
        """Scores every clip against every caption.

        Args:
            input_ids: (B_text, L) token ids.
            input_features: (B_audio, T, F) log-mel of the model's own feature extractor.
            attention_mask: (B_text, L) True at real tokens, or None when all are.
            input_features_mask: (B_audio, T) True at real frames, or None when all are.
            clip_ids: (B,) equal for rows that show the same clip, whose captions are then all right; None: no two do.
            return_loss: also return the objective of paired rows (Eq. 7 and the code's regulariser).
            **kwargs: `output_hidden_states`, `output_attentions` and `token_type_ids`; others are ignored.

        Returns:
            Similarities, embeddings and both encoders' outputs.

        Raises:
            ValueError: if one of the two modalities is missing.
        """
        if input_ids is None or input_features is None:
            raise ValueError(
                "`input_ids` and `input_features` are both needed, got "
                f"{'no captions' if input_ids is None else 'no clips'}. Call `get_text_features` or "
                "`get_audio_features` for one modality."
            )
        shared = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
        token_types = {name: kwargs[name] for name in ("token_type_ids",) if name in kwargs}
        audio = self.audio_model(input_features, input_features_mask, **shared)
        text = self._run_text_model(input_ids, attention_mask, {**shared, **token_types})
        frames, frame_mask = self.audio_projection(audio.frame_features), audio.frame_mask
        words, word_mask = self.text_projection(text.last_hidden_state), self.word_mask(input_ids, attention_mask)
        audio_embeds, audio_weights = self._aggregate(frames, frame_mask, "neg_inf")
        text_embeds, text_weights = self._aggregate(words, word_mask, self.config.text_mask_mode)
        audio.pooler_output, text["pooler_output"] = audio_embeds, text_embeds
        if self.config.scores_pairs:
            clips, captions = (_unit(frames), frame_mask), (_unit(words), word_mask)
        else:
            clips, captions = (audio_embeds,), (text_embeds,)
        logits_per_audio = self.logit_scale().to(audio_embeds.dtype) * self._similarities(clips, captions)
        terms = self._loss_terms(clips, captions, (audio_embeds, text_embeds), clip_ids) if return_loss else None
        return AudioTextOutput(
            loss=None if terms is None else self._weighted(terms),
            loss_terms=terms,
            logits_per_audio=logits_per_audio,
            logits_per_text=logits_per_audio.T,
            text_embeds=text_embeds,
            audio_embeds=audio_embeds,
            text_model_output=text,
            audio_model_output=audio,
            metrics=self._metrics(audio_weights, text_weights) if return_loss else None,
        )

    def contrastive_loss(self, audio_embeds: Tensor, text_embeds: Tensor, clip_ids: Tensor | None = None) -> Tensor:
        """Hard-negative guided loss of paired unit embeddings (B, E) over the batches of all processes: () in nats.

        Raises:
            ValueError: for a model that scores pairs, whose loss is no matter of embeddings.
        """
        if self.config.scores_pairs:
            raise ValueError(
                f"`aggregation` {self.config.aggregation!r} scores clips and captions together, got their embeddings. "
                "Call the model with `return_loss=True`."
            )
        return self._loss_terms((audio_embeds,), (text_embeds,), (audio_embeds, text_embeds), clip_ids)["contrastive"]

    def set_progress(self, step: int, num_steps: int) -> None:
        """Takes where training is, from 0; the loop calls it before each step."""
        self._step = step

    def after_optimizer_step(self) -> None:
        """Warns after some steps of training if many codewords were in no clip and no caption of any process."""
        if self.codebook is None or self._step != GUARD_STEPS - 1:
            return
        is_used = max_over_processes(self.codebook.is_used.byte())
        share = 1 - is_used.float().mean().item()
        if share > MANY_DEAD and process_rank() == 0:
            logger.warning(
                f"{share:.0%} of the {self.config.num_codewords} codewords were in no clip and no caption of the "
                f"first {GUARD_STEPS} steps (since the last resume). They are dead weight, or training collapses: "
                f"raise `affinity_divisor` ({self.codebook.affinity_divisor:g}), or lower `num_codewords`."
            )

    def _run_text_model(self, input_ids: Tensor, attention_mask: Tensor | None, kwargs: dict):
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if "token_type_ids" in kwargs and not takes_token_types(self.config.text_config):
            kwargs = {name: value for name, value in kwargs.items() if name != "token_type_ids"}
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask, **{**kwargs, "return_dict": True})

    def _need_codebook(self) -> SharedCodebook:
        if self.codebook is None:
            raise ValueError(
                f"This model has no codebook, got `aggregation` {self.config.aggregation!r}. Load one that was "
                "trained with 'codebook'."
            )
        return self.codebook

    def _aggregate(self, features: Tensor, mask: Tensor, mask_mode: str) -> tuple[Tensor, Tensor | None]:
        """Unit embeddings (B, E) of frames or words (B, L, E), and their codeword weights (B, M) with a codebook."""
        if self.codebook is not None:
            pooled, weights = self.codebook(features, mask, mask_mode)
            return unit_rows(pooled).to(features.dtype), weights
        if self.config.aggregation == "mean":
            return unit_rows(masked_mean(features, mask)), None
        if self.config.aggregation == "max":
            lowest = torch.finfo(features.dtype).min
            return unit_rows(features.masked_fill(~mask.unsqueeze(-1), lowest).max(dim=1).values), None
        return unit_rows(masked_mean(_unit(features), mask)), None

    def _similarities(self, clips: tuple[Tensor, ...], captions: tuple[Tensor, ...]) -> Tensor:
        """Cosine similarities, or the pair scores of `aggregation`: (A, B)."""
        if self.config.scores_pairs:
            return PAIR_SCORES[self.config.aggregation](*clips, *captions)
        return clips[0] @ captions[0].T

    def _loss_terms(
        self,
        clips: tuple[Tensor, ...],
        captions: tuple[Tensor, ...],
        embeds: tuple[Tensor, Tensor],
        clip_ids: Tensor | None,
    ) -> dict[str, Tensor]:
        """The unweighted terms over the pairs of all processes, in float32."""
        config, gathers = self.config, self.config.gather_embeddings
        if clips[0].shape[0] != captions[0].shape[0]:
            raise ValueError(
                f"The loss needs as many clips as captions, got {clips[0].shape[0]} and {captions[0].shape[0]}. Pair "
                "row i of one with row i of the other."
            )
        with torch.autocast(clips[0].device.type, enabled=False):
            clips, captions, embeds = _as_float(clips), _as_float(captions), _as_float(embeds)
            all_clips, all_captions = (gather_padded(part) if gathers else part for part in (clips, captions))
            scale = self.logit_scale()
            contrastive = hard_negative_contrastive_loss(
                scale * self._similarities(clips, all_captions),
                scale * self._similarities(all_clips, captions).T,
                _pairs(len(clips[0]), clip_ids, clips[0].device, gathers),
                gamma=config.hard_negative_gamma,
                denominator=config.hard_negative_denominator,
                gathers=gathers,
            )
            terms = {"contrastive": contrastive}
            if config.regularizer_weight > 0:
                terms["regularizer"] = sum(embedding_regularizer(gather_rows(e) if gathers else e) for e in embeds)
        return terms

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return sum(getattr(self.config, f"{name}_weight") * term for name, term in terms.items())

    def _metrics(self, audio_weights: Tensor | None, text_weights: Tensor | None) -> dict[str, Tensor]:
        """Values to watch: how many codewords clips and captions are sums of, and the multiplier."""
        metrics = {"logit_scale": self.logit_scale().detach()}
        for name, weights in (("audio", audio_weights), ("text", text_weights)):
            if weights is not None:
                metrics[f"active_codewords_{name}"] = (weights.detach() > 0).sum(1).float().mean()
        return metrics


def _codebook(config: MgaClapConfig) -> SharedCodebook:
    return SharedCodebook(
        config.num_codewords,
        config.projection_dim,
        affinity_divisor=config.affinity_divisor,
        mask_mode=config.text_mask_mode,
        normalize_affinity=config.normalize_affinity,
        pooling=config.codebook_pooling,
        activation=config.codebook_activation,
    )


def _unit(features: Tensor) -> Tensor:
    """Vectors of length 1 along the last axis, computed in float32."""
    return F.normalize(features.float(), dim=-1).to(features.dtype)


def _as_float(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Floating tensors in float32 (float64 stays), masks as they are."""
    return tuple(
        tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor
        for tensor in tensors
    )


def _pairs(batch: int, clip_ids: Tensor | None, device: torch.device, gathers: bool) -> Tensor:
    """Bool (B, N): which columns, of all processes, are of the same clip as each own row."""
    if clip_ids is not None:
        return clip_ids.unsqueeze(1) == (gather_rows(clip_ids) if gathers else clip_ids)
    own = torch.eye(batch, dtype=torch.bool, device=device)
    if not gathers:
        return own
    rank = process_rank()
    return F.pad(own, (rank * batch, (world_size() - rank - 1) * batch))


__all__ = ["MgaClapModel"]
