# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of the Zipformer, the encoder of icefall's recipes and of CaptionStew."""

from huggingface_hub.dataclasses import strict

from .configuration_audio_head import AudioHeadConfig

_PER_STACK = (
    "num_encoder_layers", "encoder_dim", "encoder_unmasked_dim", "feedforward_dim", "num_heads", "cnn_module_kernel",
)  # fmt: skip
_BASE = {
    "num_encoder_layers": (2, 2, 3, 4, 3, 2),
    "encoder_dim": (192, 256, 384, 512, 384, 256),
    "feedforward_dim": (512, 768, 1024, 1536, 1024, 768),
    "encoder_unmasked_dim": (192, 192, 256, 256, 256, 192),
}
_LARGE = {
    "num_encoder_layers": (2, 2, 4, 5, 4, 2),
    "encoder_dim": (192, 256, 512, 768, 512, 256),
    "feedforward_dim": (512, 768, 1536, 2048, 1536, 768),
    "encoder_unmasked_dim": (192, 192, 256, 320, 256, 192),
}
# Sizes with a name: icefall's small, medium and large, and the two of Auden, the toolkit of CaptionStew's authors.
ZIPFORMER_PRESETS: dict[str, dict[str, tuple[int, ...]]] = {
    "zipformer-s": {
        "num_encoder_layers": (2, 2, 2, 2, 2, 2),
        "encoder_dim": (192, 256, 256, 256, 256, 256),
        "feedforward_dim": (512, 768, 768, 768, 768, 768),
        "encoder_unmasked_dim": (192, 192, 192, 192, 192, 192),
    },
    "zipformer-m": _BASE,
    "zipformer-l": _LARGE,
    "zipformer-m-auden": _BASE | {"feedforward_dim": (576, 768, 1152, 1536, 1152, 768)},
    "zipformer-l-auden": _LARGE
    | {
        "feedforward_dim": (576, 768, 1536, 2304, 1536, 768),
        "encoder_unmasked_dim": (192, 192, 256, 256, 256, 192),
    },
}


@strict
class ZipformerConfig(AudioHeadConfig):
    """Numbers of a Zipformer; the defaults are Auden's base size, with which CaptionStew's models are built.

    Lists have one number per stack. Names are icefall's, so that its `--encoder-dim` and the like carry over.
    """

    model_type = "zipformer"
    base_config_key = "audio_config"

    num_mel_bins: int = 80  # of the Kaldi filter bank; icefall
    embed_channels: list[int] | tuple[int, ...] = (8, 32, 128)  # of the three first convolutions; icefall
    downsampling_factor: list[int] | tuple[int, ...] = (1, 2, 4, 8, 4, 2)  # frames of 20 ms per frame; icefall
    num_encoder_layers: list[int] | tuple[int, ...] = (2, 2, 3, 4, 3, 2)
    encoder_dim: list[int] | tuple[int, ...] = (192, 256, 384, 512, 384, 256)  # width
    feedforward_dim: list[int] | tuple[int, ...] = (576, 768, 1152, 1536, 1152, 768)  # the 2nd; 1st 3/4, 3rd 5/4
    encoder_unmasked_dim: list[int] | tuple[int, ...] = (192, 192, 256, 256, 256, 192)  # never dropped in training
    num_heads: list[int] | tuple[int, ...] = (4, 4, 4, 8, 4, 4)
    cnn_module_kernel: list[int] | tuple[int, ...] = (31, 31, 15, 15, 15, 31)  # frames of the stack, odd
    query_head_dim: int = 32
    value_head_dim: int = 12
    pos_head_dim: int = 4
    pos_dim: int = 48
    output_downsampling_factor: int = 2  # frames of 20 ms per output frame

    exact_padding: bool = True  # a clip's output is the same alone and in any batch; False: as in icefall's code
    padding_value: float | int = -23.025850929940457  # log-mel of padding, log(1e-10); icefall

    causal: bool = False  # chunk-causal convolutions, and attention in chunks when a chunk size is given
    chunk_size: list[int] | tuple[int, ...] = (16, 32, 64, -1)  # drawn per batch in training, frames of 20 ms; icefall
    left_context_frames: list[int] | tuple[int, ...] = (64, 128, 256, -1)  # likewise; -1: all that came before

    dropout_start: float | int = 0.3  # of feed-forward layers and of the first frames, at the first batch; icefall
    dropout: float | int = 0.1  # the same from batch 20,000 on; icefall
    layer_drop: float | int = 0.035  # share of skipped layers in the end, times sqrt(downsampling factor); icefall
    feature_mask_rate: float | int = 0.125  # share of clips that lose the upper channels; icefall
    activation_regularizers: bool = False  # Balancer, Whiten, score penalty: for training from scratch; icefall: True
    reference_batches_per_step: float | int = 1.0  # batches of 600 s that one step counts as in all schedules; icefall

    def __post_init__(self, **kwargs):
        for name in _PER_STACK:
            value = list(getattr(self, name))
            setattr(self, name, value * self.num_stacks if len(value) == 1 else value)
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **fields) -> "ZipformerConfig":
        """The configuration of a size with a name, `fields` beside or instead of its own.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in ZIPFORMER_PRESETS:
            raise ValueError(f"Unknown preset {name!r}. Choose one of {sorted(ZIPFORMER_PRESETS)}.")
        return cls(**{**ZIPFORMER_PRESETS[name], **fields})

    def validate_stacks(self):
        """Raises if the lists do not have one number per stack, or numbers that no stack can work with."""
        for name in _PER_STACK:
            if len(getattr(self, name)) != self.num_stacks:
                raise ValueError(
                    f"`{name}` must have one number per stack, {self.num_stacks} as `downsampling_factor`, got "
                    f"{list(getattr(self, name))}. Make them equally long, or give one number for all."
                )
        if min(self.downsampling_factor) < 1 or self.output_downsampling_factor < 1:
            raise ValueError(
                f"`downsampling_factor` and `output_downsampling_factor` must be at least 1, got "
                f"{list(self.downsampling_factor)} and {self.output_downsampling_factor}."
            )
        if any(kernel % 2 == 0 for kernel in self.cnn_module_kernel):
            raise ValueError(f"`cnn_module_kernel` must be odd, got {list(self.cnn_module_kernel)}. Add or take 1.")
        if self.pos_dim % 2 != 0:
            raise ValueError(f"`pos_dim` must be even, got {self.pos_dim}. Half of it are sines.")
        pairs = zip(self.encoder_unmasked_dim, self.encoder_dim, strict=True)
        if any(unmasked > width for unmasked, width in pairs):
            raise ValueError(
                f"`encoder_unmasked_dim` must not exceed `encoder_dim`, got {list(self.encoder_unmasked_dim)} and "
                f"{list(self.encoder_dim)}."
            )
        if len(self.embed_channels) != 3 or self.num_mel_bins < 7:
            raise ValueError(
                "`embed_channels` must be three numbers and `num_mel_bins` at least 7, got "
                f"{list(self.embed_channels)} and {self.num_mel_bins}."
            )

    def validate_chunks(self):
        """Raises for chunks that the stacks cannot divide, or with too little context for their convolutions."""
        if not self.causal:
            return
        if not self.chunk_size or not self.left_context_frames:
            raise ValueError("`chunk_size` and `left_context_frames` need a number each, got none. -1 means all.")
        for chunk in self.chunk_size:
            for context in self.left_context_frames:
                self.check_chunk(chunk, context)

    def check_chunk(self, chunk_size: int, left_context_frames: int) -> None:
        """Makes sure that the stacks can work in such chunks.

        Args:
            chunk_size: frames of 20 ms; -1 for none.
            left_context_frames: frames before the chunk that it sees; -1 for all.

        Raises:
            ValueError: if they cannot.
        """
        if chunk_size == -1:
            return
        if chunk_size < 1 or any(chunk_size % factor for factor in self.downsampling_factor):
            raise ValueError(
                f"`chunk_size` must be -1 or a multiple of every `downsampling_factor` "
                f"{list(self.downsampling_factor)}, got {chunk_size}."
            )
        if left_context_frames < 0:
            return
        seen = chunk_size * max(1, left_context_frames // chunk_size)
        needed = max(k // 2 * f for k, f in zip(self.cnn_module_kernel, self.downsampling_factor, strict=True))
        if seen < needed:
            raise ValueError(
                f"`left_context_frames` {left_context_frames} gives chunks of {chunk_size} frames {seen} frames of "
                f"context, but the convolutions reach back {needed}. Raise it to at least {needed}, or use -1."
            )

    @property
    def num_stacks(self) -> int:
        """Stacks of layers, each at its own frame rate."""
        return len(self.downsampling_factor)

    @property
    def hidden_size(self) -> int:
        """Width of the output: that of the widest stack."""
        return max(self.encoder_dim)

    @property
    def num_hidden_layers(self) -> int:
        """Number of stacks: `hidden_states` has one entry per stack, after that of its input."""
        return self.num_stacks

    @property
    def num_attention_heads(self) -> int:
        """Heads of the widest stack."""
        return self.num_heads[self.encoder_dim.index(self.hidden_size)]

    @property
    def frame_feature_size(self) -> int:
        """Width of `frame_features`."""
        return self.hidden_size

    @property
    def feature_frame_rate_hz(self) -> float:
        """Input frames per second, hop 10 ms."""
        return 100.0

    @property
    def frame_rate_hz(self) -> float:
        """Output frames per second."""
        return self.feature_frame_rate_hz / 2 / self.output_downsampling_factor

    @property
    def frame_offset_seconds(self) -> float:
        """Where output frame 0 begins.

        Frame i of 20 ms reads input frames 2 i .. 2 i + 8, input frame f is centred at (f + 0.5) * 10 ms, and output
        frame k is the mean of the frames of 20 ms from k * factor on: it is centred at 0.055 s + 0.04 s * k with the
        factor 2, and covers one output step around that.
        """
        centre = (4.5 + (self.output_downsampling_factor - 1)) / self.feature_frame_rate_hz
        return centre - 0.5 / self.frame_rate_hz


def num_zipformer_frames(num_input_frames: int, output_downsampling_factor: int = 2) -> int:
    """Output frames of a clip with a number of input frames; fewer than 9 input frames are padded to 9."""
    return -(-max(1, (num_input_frames - 7) // 2) // output_downsampling_factor)


__all__ = ["ZIPFORMER_PRESETS", "ZipformerConfig", "num_zipformer_frames"]
