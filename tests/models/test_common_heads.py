# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on every class with a classification head."""

import pytest
import torch
from common import CommonModelTests
from tiny import (
    tiny_ast_config,
    tiny_captionstew_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_zipformer_config,
)
from transformers import AutoModelForAudioClassification, AutoModelForAudioFrameClassification

from hf_audiolang.models import modeling_audio_classification as heads

NUM_LABELS = 5
CONFIGS = {
    "CaptionStew": lambda: tiny_captionstew_config(audio_config=tiny_zipformer_config()),
    "Htsat": tiny_htsat_config,
    "M2dClap": tiny_m2d_clap_config,
    "M2dClapAudio": tiny_m2d_clap_audio_config,
    "MgaClap": tiny_mga_clap_config,
    "NativeAudio": tiny_ast_config,
    "Slap": tiny_slap_config,
    "SlapAudio": tiny_slap_audio_config,
    "Zipformer": tiny_zipformer_config,
}
MASK_TOKEN = "audio_model.embeddings.mask_token"  # SLAP's, for masked training alone
NO_SDPA = ("CaptionStew", "Zipformer")  # there is one implementation of its attention


class HeadTests(CommonModelTests):
    main_output = "logits"
    test_sizes_have_the_usual_names = None  # the configurations' own tests have it

    def make_config(self):
        config = CONFIGS[self.family]()
        config.num_labels = NUM_LABELS
        config.problem_type = "multi_label_classification"
        return config

    def make_inputs(self, config):
        audio_config = getattr(config, "audio_config", config)
        generator = torch.Generator().manual_seed(1)
        lengths = torch.tensor([[90], [37], [64]])
        features = torch.randn(3, 90, audio_config.num_mel_bins, generator=generator)
        return {"input_features": features, "input_features_mask": torch.arange(90) < lengths}


def _tests_of(family: str, kind: str, auto_class: type) -> type:
    name = f"{family}For{kind}"
    fields = {"family": family, "model_class": getattr(heads, name), "auto_class": auto_class}
    fields["unused_parameters"] = (MASK_TOKEN,) if family.startswith("Slap") else ()
    if family in NO_SDPA:
        fields["test_eager_attention_equals_sdpa"] = None
    return type(f"Test{name}", (HeadTests,), fields)


for _family in CONFIGS:
    for _kind, _auto in (
        ("AudioClassification", AutoModelForAudioClassification),
        ("AudioFrameClassification", AutoModelForAudioFrameClassification),
    ):
        _class = _tests_of(_family, _kind, _auto)
        globals()[_class.__name__] = _class
del _class


@pytest.mark.parametrize("name", sorted(heads.__all__))
def test_every_head_has_the_shared_tests(name):
    assert f"Test{name}" in globals()
