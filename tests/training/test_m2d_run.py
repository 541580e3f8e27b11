import functools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from accelerate_state import forget_accelerate
from m2d_toy_run import (
    ALIGN,
    run,
    same_weights,
    save_config,
    save_store,
    save_text_model,
    settings,
    text_keys,
    tokenizer_of,
)
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor

from hf_audiolang import M2dClapAudioModel, M2dClapForPreTraining
from hf_audiolang.data.records import RecordView
from hf_audiolang.data.sampling import EpochSampler
from hf_audiolang.data.sound_scenes import SoundScenes
from hf_audiolang.training import load_run_config, pretrain
from hf_audiolang.training.build import build_feature_extractor, build_processor, loader_maker, scene_options
from hf_audiolang.training.checkpoint import find_last_checkpoint
from hf_audiolang.training.log import LOG_FILE, read_log
from hf_audiolang.training.run import refuse_changes

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ["--freeze", "text_model.*"]


@pytest.fixture(autouse=True)
def _fresh_accelerate(monkeypatch):
    monkeypatch.chdir(ROOT)  # the configurations name the model folders from there
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture
def _without_evaluation(monkeypatch):
    """The end of a run is its export."""
    monkeypatch.setattr("hf_audiolang.training.run.evaluate_run", lambda *a: ({}, []))
    for name in ("describe_model", "write_figures"):
        monkeypatch.setattr(f"hf_audiolang.training.run.{name}", lambda *a: None)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    return save_text_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def store(tmp_path_factory, text_model):
    return save_store(tmp_path_factory.mktemp("store"), text_model[0])


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory, text_model, store) -> list[str]:
    """Keys of a run with both losses whose captions are embedded by its own, frozen text tower."""
    numbers = {"text_config": text_model[1], "text_pooling": "mean"}
    folder = save_config(tmp_path_factory.mktemp("config"), contrastive_weight=1.0, **numbers)
    return ["--model_config", folder, "--text_embeddings", str(store.folder), *FROZEN, *text_keys(text_model[0])]


def interrupted(monkeypatch, output_dir: Path, arguments: list[str], method: str) -> None:
    """The same run, stopped by a signal after its third step, and then continued."""
    original, calls = getattr(M2dClapForPreTraining, method), []

    def call_and_signal(self, *values):
        calls.append(values)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr(M2dClapForPreTraining, method, call_and_signal)
        assert run(output_dir, *arguments).signal_number == signal.SIGTERM
    forget_accelerate()
    run(output_dir, *arguments, "--resume")


def test_m2d_alone_trains_on_sounds_and_exports_the_encoder(tmp_path):
    folder = save_config(tmp_path / "config", text_config=None, contrastive_weight=0.0)
    result = run(tmp_path / "run", "--model_config", folder)
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= report["probe/accuracy"] <= 1
    assert not [name for name in report if name.startswith(("zero_shot/", "text_to_audio/"))]
    assert result.embeds_text is False
    steps = [line for line in read_log(tmp_path / "run" / LOG_FILE) if "loss" in line]
    assert all(line["loss"] == line["masked"] and "contrastive" not in line for line in steps)
    exported = tmp_path / "run" / "model"
    model, info = AutoModel.from_pretrained(exported, output_loading_info=True)
    assert isinstance(model, M2dClapAudioModel)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert AutoFeatureExtractor.from_pretrained(exported).is_measured
    assert tokenizer_of(tmp_path / "run") is None
    # and the next stage begins with it
    forget_accelerate()
    tower = save_config(tmp_path / "tower", **ALIGN, contrastive_weight=1.0)
    arguments = ["--model_config", tower, "--audio_model", str(exported), "--freeze", "audio_model.*"]
    run(tmp_path / "next", *arguments)
    system = AutoModel.from_pretrained(tmp_path / "next" / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(system.audio_model.state_dict()[name], value), name


def test_m2d_alone_needs_no_captions(tmp_path, monkeypatch):
    scenes = RecordView(SoundScenes("train", 12, **scene_options(settings("--model_config", "x").data)))
    mute = [replace(record, captions=()) for record in scenes]
    monkeypatch.setattr("hf_audiolang.training.run.build_datasets", lambda *a: (mute, None))
    monkeypatch.setattr("hf_audiolang.training.run._finish", lambda run, *rest: run)
    folder = save_config(tmp_path / "config", text_config=None, contrastive_weight=0.0)
    result = run(tmp_path / "run", "--model_config", folder)
    assert (result.progress.step, result.progress.bad_examples) == (4, [])


def test_ones_own_sounds_train_an_encoder_and_the_report_says_what_is_left_out(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "sounds").mkdir()
    rows = ["file_name,caption"]
    for number in range(20):
        samples = 0.1 * generator.standard_normal(16000 + 400 * number)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", samples, 16000)
        rows.append(f"{number}.wav,noise {number}")
    (tmp_path / "sounds" / "metadata.csv").write_text("\n".join(rows) + "\n")
    folder = save_config(tmp_path / "config", text_config=None, contrastive_weight=0.0)
    result = run(tmp_path / "run", "--model_config", folder, "--train_data", str(tmp_path / "sounds"))
    assert list(result.report["left_out"]) == ["retrieval"]
    assert (tmp_path / "run" / "figures" / "losses.png").is_file()
    assert not (tmp_path / "run" / "figures" / "scene.png").exists()
    assert (tmp_path / "run" / "model" / "README.md").is_file()


def test_the_store_stands_in_for_the_tower(tmp_path, stage_1, text_model, monkeypatch):
    seen, forward = [], M2dClapForPreTraining.forward

    @functools.wraps(forward)
    def record(self, *arguments, **inputs):
        seen.append(inputs)
        return forward(self, *arguments, **inputs)

    monkeypatch.setattr(M2dClapForPreTraining, "forward", record)
    run(tmp_path / "run", *stage_1)
    assert len(seen) == 4
    for inputs in seen:
        assert set(inputs) == {"input_features", "input_features_mask", "text_embeddings", "return_loss"}
        assert inputs["text_embeddings"].shape == (4, 16)
    system = AutoModel.from_pretrained(tmp_path / "run" / "model")
    source = AutoModel.from_pretrained(text_model[0]).state_dict()
    for name, value in system.text_model.state_dict().items():
        assert torch.equal(value, source[name]), name
    assert len(tokenizer_of(tmp_path / "run")) == text_model[1].vocab_size
    assert 0 <= json.loads((tmp_path / "run" / "metrics.json").read_text())["zero_shot/accuracy"] <= 1


@pytest.mark.usefixtures("_without_evaluation")
@pytest.mark.parametrize("kind", ["store", "frozen_tower"])
def test_an_interrupted_run_resumes_to_the_bit(tmp_path, monkeypatch, stage_1, text_model, kind):
    arguments, method = stage_1, "update_teacher"
    if kind == "frozen_tower":  # and the text tower trains with dropout, under a warm-up of half the run
        numbers = {"text_config": text_model[1], **ALIGN, "contrastive_weight": 1.0}
        folder = save_config(tmp_path / "config", **numbers)
        arguments = ["--model_config", folder, *text_keys(text_model[0]), "--freeze", "audio_model.*"]
        arguments, method = [*arguments, "--warmup_steps", "0.5"], "after_optimizer_step"
    run(tmp_path / "whole", *arguments)
    forget_accelerate()
    interrupted(monkeypatch, tmp_path / "parts", arguments, method)
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    logs = [read_log(tmp_path / name / LOG_FILE) for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert len({line["loss"] for line in logs[0]}) == 4
    states = [find_last_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    first, second = (load_file(state / "model.safetensors") for state in states)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    optimizer = torch.load(states[0] / "optimizer.bin", weights_only=True)
    frozen = "m2d_clap.text_model." if kind == "store" else "m2d_clap.audio_model."
    trained = [
        name
        for name in first
        if not name.startswith((frozen, "teacher_")) and not name.endswith("position_embeddings")
    ]
    assert len(optimizer["state"]) == len(trained)


@pytest.mark.multiprocess
def test_workers_and_the_store_do_not_change_what_is_drawn(store, stage_1):
    config = settings(*stage_1)
    scenes = RecordView(SoundScenes("train", 12, **scene_options(config.data)))
    processor = build_processor(config, build_feature_extractor(config.model), scenes)
    batches = {}
    for name, num_workers, text_store in [("tokens", 0, None), ("store", 0, store), ("workers", 1, store)]:
        config.data.num_workers = num_workers
        loader = loader_maker(config, processor, scenes, EpochSampler(12, 4, 0), 3, text_store=text_store)(0)
        batches[name] = list(loader)
        assert len(batches[name]) == 3
    for tokens, stored, worker in zip(*batches.values(), strict=True):
        assert torch.equal(stored["input_features"], tokens["input_features"])
        assert torch.equal(stored["text_embeddings"], worker["text_embeddings"])
        assert torch.equal(stored["input_features"], worker["input_features"])
        texts = processor.tokenizer.batch_decode(tokens["input_ids"], skip_special_tokens=True)
        known = {" ".join(text.lower().split()): text for text in store.captions()}
        named = [known[" ".join(text.split())] for text in texts]
        assert torch.equal(stored["text_embeddings"], store.rows(named))


@pytest.mark.usefixtures("_without_evaluation")
def test_three_stages_follow_each_other_from_their_files(tmp_path):
    """The chain of the scenes, each a smoke run that starts from the one before."""

    def smoke(stage: str, *arguments: str):
        forget_accelerate()
        path = ROOT / "configs" / "pretrain" / f"m2d_clap_scenes_stage{stage}.yaml"
        keys = ["--smoke", "--output_dir", str(tmp_path / stage), "--num_threads", "1", *arguments]
        pretrain(load_run_config([str(path), *keys]))
        return AutoModel.from_pretrained(tmp_path / f"{stage}_smoke" / "model")

    first = smoke("1")
    second = smoke("2", "--audio_model", str(tmp_path / "1_smoke" / "model"))
    third = smoke("2_1", "--model", str(tmp_path / "2_smoke" / "model"))
    folders = [tmp_path / f"{stage}_smoke" / "model" for stage in ("1", "2", "2_1")]
    for name, value in first.audio_model.state_dict().items():
        assert torch.equal(second.audio_model.state_dict()[name], value), name
        assert torch.equal(third.audio_model.state_dict()[name], value), name
    second, third = second.state_dict(), third.state_dict()
    moved = [name for name in second if not name.startswith("audio_model.")]
    changed = [name for name in moved if not torch.equal(second[name], third[name])]
    assert {name.split(".")[0] for name in changed} >= {"text_model", "audio_projection", "text_projection"}
    for name in moved:  # two steps of a small rate lead from the one to the other
        torch.testing.assert_close(third[name], second[name], rtol=0, atol=2e-3)
    statistics = {AutoFeatureExtractor.from_pretrained(folder).mean for folder in folders}
    assert len(statistics) == 1
    vocabularies = [AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() for folder in folders[1:]]
    assert vocabularies[0] == vocabularies[1]
    terms = [
        {name for name in read_log(tmp_path / f"{stage}_smoke" / LOG_FILE)[0] if name in ("masked", "contrastive")}
        for stage in ("1", "2", "2_1")
    ]
    assert terms == [{"masked", "contrastive"}, {"contrastive"}, {"contrastive"}]


@pytest.mark.usefixtures("_without_evaluation")
def test_the_command_line_makes_m2d_alone_of_stage_1_and_trains_the_encoder_in_stage_2(tmp_path):
    def smoke(stage: str, name: str, *arguments: str):
        forget_accelerate()
        path = ROOT / "configs" / "pretrain" / f"m2d_clap_scenes_stage{stage}.yaml"
        pretrain(
            load_run_config(
                [str(path), *arguments, "--smoke", "--output_dir", str(tmp_path / name), "--num_threads=1"]
            )
        )
        logged = read_log(tmp_path / f"{name}_smoke" / LOG_FILE)[0]
        return AutoModel.from_pretrained(tmp_path / f"{name}_smoke" / "model"), logged

    unset = ["--text_embeddings", "none", "--text_model", "none", "--freeze", "none"]
    encoder, logged = smoke("1", "alone", "--contrastive_weight", "0", *unset)
    assert isinstance(encoder, M2dClapAudioModel)
    assert "contrastive" not in logged
    assert not (tmp_path / "alone_smoke" / "text_embeddings").exists()
    start = ["--audio_model", str(tmp_path / "alone_smoke" / "model")]
    whole, _ = smoke("2", "whole", *start, "--freeze", "none")
    frozen, _ = smoke("2", "frozen", *start)  # control
    name = "layers.0.attn.q_proj.weight"
    assert torch.equal(frozen.audio_model.state_dict()[name], encoder.state_dict()[name])
    assert not torch.equal(whole.audio_model.state_dict()[name], encoder.state_dict()[name])


def test_a_run_that_began_without_a_newer_key_continues_with_its_default(tmp_path):
    folder = tmp_path / "checkpoints" / "step_00000002"
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps({"step": 2}))
    arguments = ["--model_config", "x", "--output_dir", str(tmp_path), "--resume"]
    config = settings(*arguments)
    config.save(folder / "run.yaml")
    lines = [line for line in (folder / "run.yaml").read_text().splitlines() if "freeze" not in line]
    old = [line for line in lines if not line.startswith(("ema_schedule", "warmup_steps"))]
    assert len(lines) - len(old) == 2
    (folder / "run.yaml").write_text("\n".join([*old, "warmup_steps: 0"]) + "\n")
    refuse_changes(config)
    for keys, message in [
        (["--ema_schedule", "linear"], "ema_schedule: cosine -> linear"),
        (["--freeze", "a.*"], r"freeze: \[\] -> \['a.*'\]"),
        (["--audio_model", "b"], "audio_model: None -> b"),
        (["--text_embeddings", "c"], "text_embeddings: None -> c"),
        (["--warmup_steps", "0.5"], "warmup_steps: 0 -> 0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            refuse_changes(settings(*arguments, *keys))
