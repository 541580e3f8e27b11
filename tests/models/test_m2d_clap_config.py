# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Numbers and shapes that M2D-CLAP refuses."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tiny import tiny_m2d_clap_audio_config, tiny_m2d_clap_config

from hf_audiolang import AudioProjectorConfig, M2dClapAudioModel, M2dClapModel


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"mask_span_columns": 0}, "`mask_span_columns` must be at least 1, got 0"),
        ({"masked_weight": -1.0}, "`masked_weight` must be 0 or more, got -1.0"),
        ({"contrastive_weight": -0.1}, "`contrastive_weight` must be 0 or more, got -0.1"),
        ({"logit_scale_init_value": 9.0}, "must lie between 0 and `logit_scale_max` = 4.6052, got 9.0"),
        ({"masking_ratio": 1.0}, "`masking_ratio` must be at least 0 and below 1, got 1.0"),
        ({"masking_ratio": 0.0}, "`masking_ratio` is 0 with `masked_weight` 1.0"),
        ({"predictor_num_heads": 3}, "`predictor_hidden_size` must be a multiple"),
    ],
    ids=str,
)
def test_numbers_that_cannot_work_are_refused(numbers, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_m2d_clap_config(**numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"text_projector": "none"}, "`text_projector` 'none' needs caption embeddings as wide"),
        ({"projector_config": {"hidden_size": 32}}, "must be the width of the audio encoder, 24, got 32"),
    ],
    ids=str,
)
def test_widths_that_do_not_meet_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        tiny_m2d_clap_config(**numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"patch_mel_bins": 15}, "`num_mel_bins` must be a multiple of `patch_mel_bins`, got 80 and 15"),
        ({"max_frames": 15}, "`max_frames` must be at least `patch_frames` = 16, got 15"),
        ({"num_attention_heads": 7}, "got 24 and 7 heads"),
    ],
    ids=str,
)
def test_encoder_sizes_that_cannot_work_are_refused(numbers, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_m2d_clap_audio_config(**numbers)


def test_a_projector_needs_a_layer():
    with pytest.raises(StrictDataclassClassValidationError, match="`num_hidden_layers` must be at least 1, got 0"):
        AudioProjectorConfig(num_hidden_layers=0)


@pytest.mark.parametrize("shape", [(1, 0, 80), (1, 50, 64), (50, 80)])
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(batch, frames, 80 mel bins\) with a frame, got"):
        M2dClapAudioModel(tiny_m2d_clap_audio_config())(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(10,), (2, 3, 10), (2, 11)])
def test_caption_embeddings_of_another_shape_are_refused(shape):
    model = M2dClapModel(tiny_m2d_clap_config(text_config=None))
    with pytest.raises(ValueError, match=r"`text_embeddings` must be \(batch, 10\), got"):
        model.get_text_features(text_embeddings=torch.zeros(shape))
