# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""`--lora` in pre-training: what a run leaves behind, exact resume with a teacher, and what is refused before data."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from accelerate_state import forget_accelerate
from safetensors.torch import load_file
from tiny import (
    tiny_batch,
    tiny_captionstew_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_processor,
    tiny_slap_config,
)
from transformers import AutoModel, AutoModelForSpeechSeq2Seq

from hf_audiolang import (
    AudioLangProcessor,
    CaptionStewModel,
    LogMelFeatureExtractor,
    M2dClapModel,
    MgaClapModel,
    SlapForPreTraining,
    SlapModel,
)
from hf_audiolang.training import load_run_config, pretrain
from hf_audiolang.training.build import build_model
from hf_audiolang.training.config import RunConfig
from hf_audiolang.training.finish import export_adapter
from hf_audiolang.training.log import LOG_FILE, read_log
from hf_audiolang.training.outline import exported_model, outline_model

CAPTIONS = ("a dog barking", "a siren", "rain and a bell", "a low drum sound")


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    forget_accelerate()  # other tests leave theirs, perhaps of another precision
    yield
    forget_accelerate()


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A trained SLAP, as a run exports it."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(3)
    SlapModel(tiny_slap_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    rows = ["file_name,caption"]
    for number in range(8):
        soundfile.write(folder / f"{number}.wav", 0.1 * generator.standard_normal(8000 + 1000 * number), 16000)
        rows.append(f"{number}.wav,{CAPTIONS[number % 4]}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def settings(base: Path, sounds: Path, output_dir: Path, *arguments: str) -> RunConfig:
    lines = ["--model", str(base), "--train_data", str(sounds), "--eval_data", str(sounds), "--lora"]
    lines += ["--output_dir", str(output_dir), "--max_steps", "4", "--batch_size", "4", "--num_workers", "0"]
    lines += ["--log_steps", "1", "--save_steps", "2", "--learning_rate", "1e-2", "--num_threads", "1"]
    return load_run_config([*lines, "--test_size", "2", "--max_text_tokens", "16", *arguments])


def output_of(model) -> torch.Tensor:
    model.eval()
    batch = tiny_batch(model.config, seed=1)
    del batch["labels"]
    for tensor in model.parameters():
        tensor.data = tensor.data.clone()  # loaded memory is not aligned, and matrix products round by alignment
    with torch.no_grad():
        return model(**batch).logits_per_audio


@pytest.fixture(scope="module")
def whole(base, sounds, tmp_path_factory) -> Path:
    """The folder of a run with adapters and all three losses of SLAP."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    forget_accelerate()
    pretrain(settings(base, sounds, folder))
    return folder


def test_a_run_leaves_a_merged_model_and_the_adapter_alone(whole, base):
    adapted, merged = AutoModel.from_pretrained(whole / "adapter"), AutoModel.from_pretrained(whole / "model")
    assert type(adapted) is type(merged) is SlapModel
    torch.testing.assert_close(output_of(merged), output_of(adapted), rtol=1e-5, atol=1e-5)
    assert (output_of(merged) - output_of(AutoModel.from_pretrained(base))).abs().max() > 1e-3
    written = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["r"], written["lora_alpha"]) == (str(base), 8, 16.0)
    assert not [name for name in load_file(whole / "model" / "model.safetensors") if "lora" in name]
    frozen, old = (load_file(folder / "model.safetensors") for folder in (whole / "model", base))
    same = {name.partition(".")[0] for name in old if torch.equal(old[name], frozen[name])}
    assert same == {"audio_model", "text_model"}  # all but attention, which has the adapters merged
    assert torch.equal(frozen["text_model.layers.0.mlp.Wi.weight"], old["text_model.layers.0.mlp.Wi.weight"])
    for folder in ("model", "adapter"):
        assert (whole / folder / "README.md").is_file()
        assert (whole / folder / "tokenizer.json").is_file()


def test_the_captioner_beside_it_hears_with_the_merged_encoder(whole):
    captioner = AutoModelForSpeechSeq2Seq.from_pretrained(whole / "captioner")
    system = AutoModel.from_pretrained(whole / "model")
    for (name, value), other in zip(
        captioner.slap.audio_model.state_dict().items(), system.audio_model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def test_an_interrupted_run_resumes_to_the_same_adapter_bit_for_bit(whole, base, sounds, tmp_path, monkeypatch):
    update, calls = SlapForPreTraining.update_teacher, []

    def update_and_signal(self, decay):
        calls.append(decay)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, decay)

    with monkeypatch.context() as patch:
        patch.setattr(SlapForPreTraining, "update_teacher", update_and_signal)
        stopped = pretrain(settings(base, sounds, tmp_path / "parts"))
    assert stopped.signal_number == signal.SIGTERM
    assert not (tmp_path / "parts" / "adapter").exists()
    forget_accelerate()
    pretrain(settings(base, sounds, tmp_path / "parts", "--resume"))
    assert read_log(whole / LOG_FILE) == read_log(tmp_path / "parts" / LOG_FILE)
    for name in ("adapter/adapter_model", "model/model", "checkpoints/step_00000004/model"):
        weights, others = (load_file(folder / f"{name}.safetensors") for folder in (whole, tmp_path / "parts"))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in weights)


SYSTEMS = {
    "captionstew": (CaptionStewModel, tiny_captionstew_config, "captionstew"),
    "m2d_clap": (M2dClapModel, tiny_m2d_clap_config, "m2d_clap"),
    "mga_clap": (MgaClapModel, tiny_mga_clap_config, "mga_clap"),
    "slap": (SlapModel, tiny_slap_config, "slap"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_goes_on_with_adapters_in_what_it_exports(name, tmp_path):
    model_class, make_config, preset = SYSTEMS[name]
    model_class(make_config()).save_pretrained(tmp_path)
    processor = AudioLangProcessor(
        LogMelFeatureExtractor.from_preset(preset, mean=-7.0, std=9.0), tiny_processor().tokenizer
    )
    processor.save_pretrained(tmp_path)
    config = load_run_config(
        ["--model", str(tmp_path), "--max_steps", "1", "--max_seconds", "1", "--min_seconds", "1", "--lora"]
    )
    outline_model(config)
    model = build_model(config, processor.tokenizer)
    system = exported_model(model)
    assert system.peft_config["default"].r == 8
    inside = {name for name, value in system.named_parameters() if value.requires_grad}
    assert all(".lora_" in name or ".modules_to_save." in name for name in inside)
    assert any("audio_model" in name for name in inside)
    assert any("text_model" in name for name in inside)
    outside = [value for name, value in model.named_parameters() if "lora" not in name and "decoder" in name]
    assert all(value.requires_grad for value in outside)


def test_a_smoke_run_puts_adapters_on_its_own_small_model(base, tmp_path):
    lines = [f"model: {base}", "lora: true", "max_steps: 9", f"output_dir: {tmp_path}/run"]
    (tmp_path / "run.yaml").write_text("\n".join(lines))
    config = load_run_config([str(tmp_path / "run.yaml"), "--smoke"])
    assert (config.model.model, config.model.model_config) == (None, str(base))
    system = exported_model(build_model(config, tiny_processor().tokenizer))
    assert "default" in system.peft_config
    export_adapter(config, system, tiny_processor())
    written = json.loads((tmp_path / "run_smoke" / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(base)
    assert not hasattr(system, "peft_config")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "none", "--model_config", "x"], "`lora` needs `model`"),
        (["--model_config", "x", "--model", "y"], "With `lora` the model stays what it is.*model_config"),
        (["--locality_blocks", "1"], "With `lora` the model stays what it is.*locality_blocks"),
        (["--lora_rank", "0"], "`lora_rank` must be at least 1"),
        (["--lora_alpha", "0"], "`lora_alpha` must be above 0"),
        (["--lora_dropout", "1"], "`lora_dropout` must be from 0 to 0.99"),
    ],
)
def test_wrong_keys_are_refused_with_what_to_do(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, tmp_path, tmp_path / "run", *arguments)


def test_what_the_model_cannot_do_is_refused_before_data_are_made(base, sounds, tmp_path):
    for arguments, message in (
        (["--lora_targets", "q_prj"], "names 'q_prj'.*nearest is 'q_proj'"),
        (["--lora_dora"], r"`lora_dora` is true with `masked_weight` 1\.0.*teacher"),
        (["--freeze", "audio_model.*", "text_model.*", "*_projection.*", "*_pooling.*"], "Freeze less of it"),
    ):
        with pytest.raises(ValueError, match=message):
            outline_model(settings(base, sounds, tmp_path, *arguments))
    outline_model(settings(base, sounds, tmp_path, "--lora_dora", "--masked_weight", "0"))


def test_m2d_alone_leaves_an_encoder_behind_which_its_base_is_not(base, tmp_path):
    shutil.copytree(base, tmp_path / "m2d")
    tiny_m2d_clap_config().save_pretrained(tmp_path / "m2d")
    config = settings(tmp_path / "m2d", tmp_path, tmp_path / "run", "--contrastive_weight", "0", "--max_seconds", "1")
    with pytest.raises(ValueError, match=r"leaves a M2dClapAudioModel behind.*is a M2dClapModel"):
        outline_model(config)
