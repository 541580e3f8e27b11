# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The package inside other people's tools: auto classes, pipelines, sentence-transformers, Trainer."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny import (
    tiny_batch,
    tiny_captionstew_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_processor,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_tokenizer,
    tiny_zipformer_config,
)
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, AutoProcessor, pipeline

from hf_audiolang import (
    AudioLangProcessor,
    AudioProjector,
    CaptionStewForPreTraining,
    CaptionStewModel,
    HtsatModel,
    LogMelFeatureExtractor,
    M2dClapAudioModel,
    M2dClapForPreTraining,
    M2dClapModel,
    MgaClapModel,
    SlapAudioModel,
    SlapForPreTraining,
    SlapModel,
    ZipformerModel,
)


@dataclass(frozen=True)
class Family:
    """The classes of a system, a tiny configuration of it and of its encoder, and a processor that fits.

    `prefix` is where the system stands in the pre-training model, `weight` a weight of the encoder.
    """

    encoder: type
    system: type
    pretraining: type
    config: Callable
    audio_config: Callable
    processor: Callable
    prefix: str
    weight: str = "audio_model.layers.0.attn.q_proj.weight"


def m2d_clap_processor() -> AudioLangProcessor:
    return AudioLangProcessor(LogMelFeatureExtractor.from_preset("m2d_clap"), tiny_tokenizer())


def mga_clap_processor() -> AudioLangProcessor:
    """As many mel bins and seconds as the tiny HTS-AT takes."""
    numbers = {"feature_size": 16, "sampling_rate": 16000, "n_fft": 512, "win_length": 512, "hop_length": 160}
    extractor = LogMelFeatureExtractor.from_preset(
        "mga_clap", **numbers, f_max=7900.0, min_seconds=2.0, max_seconds=2.0
    )
    return AudioLangProcessor(extractor, tiny_tokenizer())


def captionstew_processor() -> AudioLangProcessor:
    return AudioLangProcessor(LogMelFeatureExtractor.from_preset("captionstew"), tiny_tokenizer())


FAMILIES = {
    "captionstew": Family(
        ZipformerModel,
        CaptionStewModel,
        CaptionStewForPreTraining,
        lambda: tiny_captionstew_config(audio_config=tiny_zipformer_config()),
        tiny_zipformer_config,
        captionstew_processor,
        "captionstew.",
        "audio_model.encoders.0.layers.0.self_attn_weights.in_proj.weight",
    ),
    "slap": Family(
        SlapAudioModel,
        SlapModel,
        SlapForPreTraining,
        tiny_slap_config,
        tiny_slap_audio_config,
        tiny_processor,
        "slap.",
    ),
    "m2d_clap": Family(
        M2dClapAudioModel,
        M2dClapModel,
        M2dClapForPreTraining,
        tiny_m2d_clap_config,
        tiny_m2d_clap_audio_config,
        m2d_clap_processor,
        "m2d_clap.",
    ),
    "mga_clap": Family(
        HtsatModel,
        MgaClapModel,
        MgaClapModel,
        lambda: tiny_mga_clap_config(affinity_divisor=50.0),
        lambda: tiny_htsat_config(locality_blocks=1),
        mga_clap_processor,
        "",
        "audio_model.audio_encoder.layers.0.blocks.0.attention.self.query.weight",
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model_folder(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(4)
    family.system(family.config()).save_pretrained(folder)
    family.processor().save_pretrained(folder)
    return folder


def tone(seconds: float, hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000).astype(np.float32)


def test_auto_classes_load_everything_from_one_folder(family, model_folder):
    assert type(AutoModel.from_pretrained(model_folder)) is family.system
    assert type(AutoProcessor.from_pretrained(model_folder)) is AudioLangProcessor
    assert type(AutoFeatureExtractor.from_pretrained(model_folder)) is LogMelFeatureExtractor


def test_encoder_of_a_full_checkpoint_is_not_random(family, model_folder):
    model = AutoModel.from_pretrained(model_folder)
    encoder = family.encoder.from_pretrained(model_folder)
    for (name, loaded), (_, original) in zip(
        encoder.named_parameters(), model.audio_model.named_parameters(), strict=True
    ):
        assert torch.equal(loaded, original), name


def test_towers_without_weights_refuse(family, tmp_path):
    family.encoder(family.audio_config()).save_pretrained(tmp_path / "audio")
    with pytest.raises(ValueError, match="allow_random_encoder=True"):
        family.system.from_pretrained(tmp_path / "audio", config=family.config())
    model = family.system.from_pretrained(tmp_path / "audio", config=family.config(), allow_random_encoder=True)
    assert isinstance(model, family.system)
    family.config().save_pretrained(tmp_path / "empty")
    with pytest.raises(OSError, match="no file named"):
        AutoModel.from_pretrained(tmp_path / "empty")


def test_pretraining_continues_from_an_exported_model(family, model_folder):
    model, info = family.pretraining.from_pretrained(model_folder, output_loading_info=True)
    assert all(not name.startswith(family.prefix) for name in info["missing_keys"])
    assert type(AutoModelForPreTraining.from_pretrained(model_folder)) is family.pretraining
    exported = AutoModel.from_pretrained(model_folder)
    for loaded, original in zip(model.base_model.parameters(), exported.parameters(), strict=True):
        assert torch.equal(loaded, original)


def test_projector_of_a_full_checkpoint_loads_alone(tmp_path):
    torch.manual_seed(4)
    system = M2dClapModel(tiny_m2d_clap_config())
    system.save_pretrained(tmp_path)
    projector = AudioProjector.from_pretrained(tmp_path)
    for (name, loaded), original in zip(
        projector.named_parameters(), system.audio_projection.parameters(), strict=True
    ):
        assert torch.equal(loaded, original), name


@pytest.mark.parametrize("batch_size", [1, 2])
def test_zero_shot_pipeline_works_unwrapped(model_folder, batch_size):
    classify = pipeline("zero-shot-audio-classification", model=str(model_folder), device="cpu")
    clips = [tone(1.3, 440), tone(0.5, 2000)]
    labels = ["a dog", "a siren", "rain"]
    results = classify(clips, candidate_labels=labels, batch_size=batch_size)
    model, processor = AutoModel.from_pretrained(model_folder), AutoProcessor.from_pretrained(model_folder)
    texts = [f"This is a sound of {label}." for label in labels]
    for clip, rows in zip(clips, results, strict=True):
        inputs = processor(text=texts, audio=clip, sampling_rate=16000, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits_per_audio[0].softmax(-1)
        for row in rows:
            assert row["score"] == pytest.approx(float(expected[labels.index(row["label"])]), abs=1e-5)


def test_sentence_transformers_encodes_text_and_audio(model_folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = sentence_transformers.SentenceTransformer(str(model_folder), device="cpu")
    model, processor = AutoModel.from_pretrained(model_folder), AutoProcessor.from_pretrained(model_folder)
    texts, clips = ["a dog", "a siren in the rain"], [tone(1.3, 440), tone(0.5, 2000)]
    with torch.no_grad():
        text = model.get_text_features(**processor(text=texts, padding=True, return_tensors="pt")).pooler_output
        audio_inputs = processor(audio=clips, sampling_rate=16000, return_tensors="pt")
        audio = model.get_audio_features(**audio_inputs).pooler_output
    np.testing.assert_allclose(encoder.encode(texts), text.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(clips), audio.numpy(), atol=1e-5)


def test_transformers_trainer_trains_it(family, tmp_path):
    from transformers import Trainer, TrainingArguments, default_data_collator

    torch.manual_seed(4)
    model = family.pretraining(family.config())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = tiny_batch(family.config(), seed=1)
    rows = [{name: value[i] for name, value in batch.items()} for i in range(len(batch["input_ids"]))]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=len(rows), report_to=[], use_cpu=True, save_steps=2
    )

    def collate(rows):
        return {**default_data_collator(rows), "return_loss": True}  # as for transformers' CLAP

    result = Trainer(model, arguments, train_dataset=rows, data_collator=collate).train()
    assert np.isfinite(result.training_loss)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p.cpu(), before[name])}
    assert f"{family.prefix}{family.weight}" in changed
    assert not any(name.startswith("teacher_") for name in changed), "the Trainer never moves the teacher"


def test_importing_twice_registers_once():
    code = "import importlib, hf_audiolang; importlib.reload(hf_audiolang.auto); importlib.reload(hf_audiolang)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_needs_neither_datasets_nor_torchaudio():
    code = (
        "import sys; sys.modules['datasets'] = sys.modules['torchaudio'] = sys.modules['evaluate'] = None;"
        "import hf_audiolang, hf_audiolang.training.loop, hf_audiolang.evaluation.retrieval;"
        "from hf_audiolang.data.sound_scenes import SoundScenes; SoundScenes('train', 2, duration=1.0)[0]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
