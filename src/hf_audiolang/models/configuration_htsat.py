# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of HTS-AT, the Swin transformer over spectrograms that MGA-CLAP and CLAP use as audio encoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from .configuration_audio_head import AudioHeadConfig

# fields of transformers' ClapAudioConfig that say nothing about this encoder
_CLAP_ONLY = (
    "enable_fusion", "fusion_type", "aff_block_r", "num_classes", "num_hidden_layers", "projection_dim",
    "projection_hidden_act", "initializer_factor", "patch_embed_input_channels", "flatten_patch_embeds",
    "enable_patch_layer_norm",
)  # fmt: skip


@strict
class HtsatConfig(AudioHeadConfig):
    """Numbers of HTS-AT; the defaults are the MGA-CLAP authors' ("official"), the names `ClapAudioConfig`'s.

    The section of a `ClapModel` folder and the file of a `ClapAudioModel` folder configure this encoder too, as long
    as they do without feature fusion.
    """

    model_type = "htsat"
    base_config_key = "audio_config"

    spec_size: int = 256  # side of the square image that the spectrogram is folded into; official
    num_mel_bins: int = 64  # MGA-CLAP 4.1
    patch_size: int | list[int] | tuple[int, ...] = 4  # side of a square patch in bins and frames; official
    patch_stride: int | list[int] | tuple[int, ...] = (4, 4)  # patches do not overlap: always `patch_size`; official
    patch_embeds_hidden_size: int = 96  # width of the first stage, doubled by each further one; official
    hidden_size: int = 768  # width of the last stage; official
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage; official
    num_attention_heads: list[int] | tuple[int, ...] = (4, 8, 16, 32)  # of each stage; official
    window_size: int = 8  # tokens on a side of an attention window; official
    mlp_ratio: float | int = 4.0  # inner width of the MLP over the width; official
    qkv_bias: bool = True  # official
    hidden_act: str = "gelu"  # the exact one, not the tanh approximation; official
    layer_norm_eps: float = 1e-5  # of the blocks' norms, torch's default elsewhere; official
    hidden_dropout_prob: float | int = 0.0  # after the MLP; official
    attention_probs_dropout_prob: float | int = 0.0  # on attention weights and after their projection; official
    drop_path_rate: float | int = 0.1  # stochastic depth of the last block, grows linearly from 0; official
    initializer_range: float = 0.02  # truncated normal; official

    locality_blocks: int = 0  # last blocks whose attention output is their values; MGA-CLAP 3.3 has 1, plain HTS-AT 0
    locality_mlp: Literal["skip", "mlp"] = "skip"  # "skip": no MLP in such a block, as the code; "mlp": as 3.3 reads

    spec_augment_time_stripes: int = 0  # per clip, in training; official training: 2
    spec_augment_time_width: int = 64  # frames, exclusive upper end of the uniform draw; official
    spec_augment_mel_stripes: int = 0  # per clip, in training; official training: 2
    spec_augment_mel_width: int = 8  # mel bins, exclusive upper end of the uniform draw; official

    feature_frame_rate_hz: float | int = 100.0  # input frames per second, hop 320 at 32 kHz; official
    clip_seconds: float | int = 10.0  # duration that the feature extractor fills clips to; MGA-CLAP 4.1

    def __post_init__(self, **kwargs):
        if kwargs.get("enable_fusion"):
            raise ValueError(
                "`enable_fusion` is True, but this encoder takes one spectrogram per clip. Load a checkpoint without "
                "feature fusion, such as an unfused CLAP."
            )
        super().__post_init__(**{name: value for name, value in kwargs.items() if name not in _CLAP_ONLY})

    def validate_patches(self):
        """Raises if patches are not squares side by side that tile the folded spectrogram."""
        sides = {*_numbers(self.patch_size), *_numbers(self.patch_stride)}
        if len(sides) != 1:
            raise ValueError(
                f"`patch_size` and `patch_stride` must be one number, got {self.patch_size} and {self.patch_stride}. "
                "Overlapping or oblong patches are not supported: give both the same number."
            )
        if self.spec_size % self.num_mel_bins != 0 or self.num_mel_bins % self.patch_side != 0:
            raise ValueError(
                "`spec_size` must be a multiple of `num_mel_bins`, and that of `patch_size`, got "
                f"{self.spec_size}, {self.num_mel_bins} and {self.patch_side}. Change one of them."
            )

    def validate_stages(self):
        """Raises if stages, widths, heads and windows do not fit one another."""
        stages = len(self.depths)
        if stages == 0 or len(self.num_attention_heads) != stages:
            raise ValueError(
                f"`depths` and `num_attention_heads` must have one number per stage, got {list(self.depths)} and "
                f"{list(self.num_attention_heads)}. Make them equally long."
            )
        if self.hidden_size != self.stage_widths[-1]:
            raise ValueError(
                f"`hidden_size` must be the width of the last stage, `patch_embeds_hidden_size` * 2 ** (stages - 1) = "
                f"{self.stage_widths[-1]}, got {self.hidden_size}. Set it to {self.stage_widths[-1]}."
            )
        for width, heads in zip(self.stage_widths, self.num_attention_heads, strict=True):
            if width % heads != 0:
                raise ValueError(
                    f"`num_attention_heads` must divide the stage widths {self.stage_widths}, got "
                    f"{list(self.num_attention_heads)}. Change the heads."
                )
        for side in self.stage_sides:
            if side == 0 or side % self.window_size != 0:
                raise ValueError(
                    f"`window_size` must divide the sides of the stages' token grids {self.stage_sides}, got "
                    f"{self.window_size}. Use a smaller window, fewer stages or a larger `spec_size`."
                )
        if self.stage_sides[-1] % self.num_segments != 0:
            raise ValueError(
                f"The last stage's grid of side {self.stage_sides[-1]} must hold {self.num_segments} segments of time "
                "(`spec_size` / `num_mel_bins`) one above the other. Use fewer stages or more mel bins."
            )

    def validate_locality(self):
        """Raises if the locality-aware blocks are not the last of the last stage."""
        if not 0 <= self.locality_blocks <= self.depths[-1]:
            raise ValueError(
                f"`locality_blocks` must lie between 0 and the depth of the last stage, {self.depths[-1]}, got "
                f"{self.locality_blocks}. The paper's value is 1."
            )

    @property
    def patch_side(self) -> int:
        """Frames and mel bins of a patch."""
        return _numbers(self.patch_size)[0]

    @property
    def num_segments(self) -> int:
        """Segments of time that are stacked along frequency to make a square image."""
        return self.spec_size // self.num_mel_bins

    @property
    def max_frames(self) -> int:
        """Input frames that every clip is stretched to, and the most it may have."""
        return self.spec_size * self.num_segments

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def stage_widths(self) -> list[int]:
        """Channels of each stage."""
        return [self.patch_embeds_hidden_size * 2**stage for stage in range(len(self.depths))]

    @property
    def stage_sides(self) -> list[int]:
        """Side of the token grid of each stage."""
        return [self.spec_size // self.patch_side // 2**stage for stage in range(len(self.depths))]

    @property
    def num_frequency_rows(self) -> int:
        """Tokens of the last stage per output frame."""
        return self.stage_sides[-1] // self.num_segments

    @property
    def num_frames(self) -> int:
        """Output frames of every clip, whatever its duration."""
        return self.stage_sides[-1] * self.num_segments

    @property
    def frame_feature_size(self) -> int:
        """Width of `frame_features`."""
        return self.hidden_size

    @property
    def frame_rate_hz(self) -> float:
        """Output frames per second of clips of `clip_seconds`."""
        return self.num_frames / self.clip_seconds

    def frame_rate_of(self, num_input_frames: int) -> float:
        """Output frames per second of a batch padded to a number of input frames.

        The frames of a centred STFT are the ends of the hops: T of them last T - 1 hops.
        """
        return self.num_frames * self.feature_frame_rate_hz / max(num_input_frames - 1, 1)


def _numbers(value: int | list[int] | tuple[int, ...]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


__all__ = ["HtsatConfig"]
