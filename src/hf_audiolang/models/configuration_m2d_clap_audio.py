# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of M2D-CLAP's audio encoder."""

from huggingface_hub.dataclasses import strict

from .configuration_audio_head import AudioHeadConfig


@strict
class M2dClapAudioConfig(AudioHeadConfig):
    """Numbers of the M2D audio encoder; the defaults are ViT-Base on 6.08 s (M2D-CLAP IV-A)."""

    model_type = "m2d_clap_audio_model"
    base_config_key = "audio_config"

    hidden_size: int = 768  # IV-A1
    num_hidden_layers: int = 12  # IV-A1
    num_attention_heads: int = 12  # IV-A1
    intermediate_size: int = 3072  # IV-A1
    layer_norm_eps: float = 1e-6  # authors' code
    num_mel_bins: int = 80  # IV-A1
    patch_mel_bins: int = 16  # IV-A1
    patch_frames: int = 16  # IV-A1
    max_frames: int = 608  # frames the position table covers; longer clips are encoded in pieces of this length
    feature_frame_rate_hz: float | int = 100.0  # input frames per second, hop 10 ms; IV-A1
    locality_blocks: int = 0  # last blocks whose attention output is their values; MGA-CLAP 3.3 has 1, M2D none

    def validate_patches(self):
        """Raises if the mel bins are not a whole number of patches, or no patch fits into `max_frames`."""
        if self.num_mel_bins % self.patch_mel_bins != 0:
            raise ValueError(
                f"`num_mel_bins` must be a multiple of `patch_mel_bins`, got {self.num_mel_bins} and "
                f"{self.patch_mel_bins}. Choose a patch height that divides the mel bins."
            )
        if self.max_frames < self.patch_frames:
            raise ValueError(
                f"`max_frames` must be at least `patch_frames` = {self.patch_frames}, got {self.max_frames}. Enlarge "
                "it to the longest input, in frames."
            )

    def validate_locality(self):
        """Raises if there are not so many blocks."""
        if not 0 <= self.locality_blocks <= self.num_hidden_layers:
            raise ValueError(
                f"`locality_blocks` must lie between 0 and `num_hidden_layers` = {self.num_hidden_layers}, got "
                f"{self.locality_blocks}. MGA-CLAP's value is 1."
            )

    def validate_widths(self):
        """Raises if the width does not fit the heads or the 2-D sine table."""
        if self.hidden_size % self.num_attention_heads != 0 or self.hidden_size % 4 != 0:
            raise ValueError(
                "`hidden_size` must be a multiple of `num_attention_heads` and of 4 (sines and cosines of two axes), "
                f"got {self.hidden_size} and {self.num_attention_heads} heads. Change the width or the heads."
            )

    @property
    def num_frequency_patches(self) -> int:
        """Patches per time column."""
        return self.num_mel_bins // self.patch_mel_bins

    @property
    def num_time_patches(self) -> int:
        """Columns of the position table."""
        return self.max_frames // self.patch_frames

    @property
    def frame_feature_size(self) -> int:
        """Width of `frame_features`: the patches of one column, concatenated (Eq. 2)."""
        return self.num_frequency_patches * self.hidden_size

    @property
    def frame_rate_hz(self) -> float:
        """Output frames per second."""
        return self.feature_frame_rate_hz / self.patch_frames


__all__ = ["M2dClapAudioConfig"]
