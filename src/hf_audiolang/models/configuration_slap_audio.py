# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of SLAP's audio encoder."""

from huggingface_hub.dataclasses import strict

from .configuration_audio_head import AudioHeadConfig


@strict
class SlapAudioConfig(AudioHeadConfig):
    """Numbers of the SLAP audio encoder; the defaults are the paper's (2.1.1, 2.1.2, 3.2)."""

    model_type = "slap_audio_model"
    base_config_key = "audio_config"

    hidden_size: int = 768  # SLAP 3.2
    num_hidden_layers: int = 12  # SLAP 3.2
    num_attention_heads: int = 12  # SLAP 3.2
    intermediate_size: int = 3072  # inner width of SwiGLU, taken literally as in LLM configs; SLAP 3.2
    num_mel_bins: int = 64  # SLAP 3.2
    patch_frames: int = 16  # frames per patch; SLAP 3.2
    patch_mel_bins: int = 16  # mel bins per patch; SLAP 3.2
    feature_frame_rate_hz: float | int = 100.0  # input frames per second, hop 10 ms; SLAP 3.2
    layer_types: list[str] | None = None  # per layer; None repeats sliding, sliding, full (SLAP 2.1.1)
    sliding_window_frames: int = 24  # total window in patch columns of 160 ms; SLAP 2.1.1, the unit is our choice
    rope_theta: float | int = 10000.0  # base of the rotary frequencies, Qwen2.5-VL's
    rms_norm_eps: float = 1e-6  # our choice
    drop_path_rate: float | int = 0.0  # stochastic depth of whole clips, grows linearly with depth
    initializer_range: float = 0.02  # truncated normal; 0.55-0.85 / sqrt(hidden_size) trains best from scratch
    # our choice, off for the paper's form: rotary positions tell only differences of frequency bands
    use_frequency_embedding: bool = False
    use_packing: bool = True  # False computes padded batches with masks, for export and static shapes

    def __post_init__(self, **kwargs):
        if self.layer_types is None:
            pattern = ("sliding_attention", "sliding_attention", "full_attention")
            self.layer_types = [pattern[layer % 3] for layer in range(self.num_hidden_layers)]
        super().__post_init__(**kwargs)

    def validate_patches(self):
        """Raises if the mel bins are not a whole number of patches."""
        if self.num_mel_bins % self.patch_mel_bins != 0:
            raise ValueError(
                f"`num_mel_bins` must be a multiple of `patch_mel_bins`, got {self.num_mel_bins} and "
                f"{self.patch_mel_bins}. Choose a patch height that divides the mel bins."
            )

    def validate_heads(self):
        """Raises if a head cannot hold rotary pairs for two axes."""
        if self.hidden_size % (4 * self.num_attention_heads) != 0:
            raise ValueError(
                f"`hidden_size` / `num_attention_heads` must be a multiple of 4 for 2-D rotary positions, got "
                f"{self.hidden_size} / {self.num_attention_heads}. Change the width or the number of heads."
            )

    @property
    def num_frequency_patches(self) -> int:
        """Patches per time step."""
        return self.num_mel_bins // self.patch_mel_bins

    @property
    def sliding_window(self) -> int:
        """Largest distance, in tokens, that a token of a sliding layer attends to (inclusive, on both sides)."""
        return self.sliding_window_frames * self.num_frequency_patches // 2

    @property
    def frame_feature_size(self) -> int:
        """Width of `frame_features`."""
        return self.hidden_size

    @property
    def frame_rate_hz(self) -> float:
        """Output frames per second."""
        return self.feature_frame_rate_hz / self.patch_frames


__all__ = ["SlapAudioConfig"]
