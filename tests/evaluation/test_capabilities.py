"""Models without text: an audio encoder with its feature extractor, and a system whose text tower was left out."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import TableModel, TableProcessor, record
from tiny import tiny_m2d_clap_config, tiny_processor, tiny_slap_config
from transformers import AutoModel, AutoProcessor

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, M2dClapAudioModel, M2dClapModel
from hf_audiolang.evaluation.capabilities import has_text_encoder, why_no_text
from hf_audiolang.evaluation.embed import embed_records, embed_texts
from hf_audiolang.evaluation.report import (
    evaluate_own_data,
    evaluate_sound_scenes,
    markdown_table,
    metrics_of,
    tasks_left_out,
)
from hf_audiolang.inference import classify_files, embed_files, load_model, search_files

SCENES = {"duration": (1.0, 1.6)}
EXTRACTOR = LogMelFeatureExtractor.from_preset("m2d_clap")
KINDS = ("encoder", "system without text tower", "the same with a tokenizer")


def build(kind):
    """(model, processor) of one kind of model without text."""
    torch.manual_seed(0)
    if kind == "encoder":
        return M2dClapAudioModel(tiny_m2d_clap_config().audio_config).eval(), EXTRACTOR
    config = tiny_m2d_clap_config(text_config=None, text_embedding_model="owner/words")
    processor = AudioLangProcessor(EXTRACTOR, tiny_processor().tokenizer) if "tokenizer" in kind else EXTRACTOR
    return M2dClapModel(config).eval(), processor


@pytest.fixture(scope="module", params=KINDS)
def without_text(request, tmp_path_factory):
    """(model, processor, folder with both)."""
    model, processor = build(request.param)
    folder = tmp_path_factory.mktemp("run") / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, seconds in (("a", 0.9), ("b", 1.7)):
        soundfile.write(folder / f"{name}.wav", rng.standard_normal(round(seconds * 16000)) / 10, 16000, "FLOAT")
    return folder


def test_folders_load_with_the_feature_extractor_and_embed_files(without_text, sounds):
    model, _, folder = without_text
    loaded, extractor = load_model(folder, "cpu")
    assert type(loaded) is type(model)
    assert isinstance(extractor, LogMelFeatureExtractor)
    assert extractor.to_dict() == EXTRACTOR.to_dict()
    found = embed_files([sounds], loaded, extractor)
    inputs = EXTRACTOR(
        [soundfile.read(sounds / "b.wav", dtype="float32")[0]], sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        expected = getattr(model, "get_audio_features", model)(**inputs).pooler_output[0]
    np.testing.assert_allclose(found.embeds[1], expected / expected.norm(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.embeds, axis=1), 1, atol=1e-6)
    assert np.abs(found.embeds[0] - found.embeds[1]).max() > 1e-3  # control: files differ


def test_questions_in_words_get_one_line_that_says_what_to_do(without_text, sounds, monkeypatch):
    model, processor, folder = without_text
    monkeypatch.setattr("hf_audiolang.inference.embed_files", lambda *_, **__: pytest.fail("asked before the check"))
    advice = r"has no text encoder.*`hf-audiolang embed`.*take a model with a text encoder"
    for call in (lambda: classify_files([sounds], ["a dog"], folder), lambda: search_files("a dog", [sounds], folder)):
        with pytest.raises(ValueError, match=advice) as refused:
            call()
        assert "\n" not in str(refused.value)
        assert f"(a {type(model).__name__})" in str(refused.value)
    with pytest.raises(ValueError, match=advice) as refused:
        embed_texts(model, processor, ["a dog"])
    is_system = isinstance(model, M2dClapModel)
    assert ("trained with caption embeddings of 'owner/words'" in str(refused.value)) == is_system


def test_a_report_without_text_is_the_probe_and_names_what_is_left_out(without_text):
    _, _, folder = without_text
    model, processor = load_model(folder, "cpu")
    report = evaluate_sound_scenes(model, processor, zero_shot_size=32, scene_options=SCENES)
    assert set(metrics_of(report)) == {"probe/accuracy", "probe/balanced_accuracy"}
    assert report["chance"]["probe/accuracy"] == 1 / 32
    assert report["probe/accuracy"] > 0.06  # 64 training clips, an untrained encoder
    assert set(report["left_out"]) == {
        "zero_shot", "retrieval", "composition/retrieval", "frame", "detection", "grounding",
    }  # fmt: skip
    assert report["ceiling"] == {}
    table = markdown_table(report)
    assert "| linear probe accuracy |" in table
    assert (
        "- Left out: zero_shot, retrieval, composition/retrieval, frame, detection, grounding. "
        f"`model` (a {type(model).__name__}) has no" in table
    )
    assert str(folder.parent) not in table  # tables are published
    own = evaluate_own_data(model, processor, [record(0, captions=("a dog",))])
    assert metrics_of(own) == {}
    assert "no text encoder" in own["left_out"]["retrieval"]


def test_the_probe_of_a_system_equals_that_of_its_encoder():
    model, processor = build("system without text tower")
    alone = evaluate_sound_scenes(model.audio_model, processor, zero_shot_size=32, scene_options=SCENES)
    assert metrics_of(alone) == metrics_of(
        evaluate_sound_scenes(model, processor, zero_shot_size=32, scene_options=SCENES)
    )


def test_a_probe_without_scikit_learn_is_left_out_with_the_command(monkeypatch):
    monkeypatch.setattr("hf_audiolang.evaluation.logistic_probe.find_spec", lambda name: None)
    model, processor = build("encoder")
    report = evaluate_sound_scenes(model, processor, zero_shot_size=4, scene_options=SCENES)
    assert metrics_of(report) == {}
    assert "pip install 'hf-audiolang[eval]'" in report["left_out"]["probe"]
    assert "- Left out: probe. The linear probe needs" in markdown_table(report)


class WithoutFrames(TableModel):
    get_audio_frame_features = property()  # `hasattr` is false, as with CLAP


def test_what_a_model_can_do_is_told_by_its_methods_and_its_tokenizer():
    eye = np.eye(3)
    assert why_no_text(TableModel(eye, eye), TableProcessor()) is None
    assert tasks_left_out(TableModel(eye, eye), TableProcessor()) == {}
    without_frames = tasks_left_out(WithoutFrames(eye, eye), TableProcessor())
    reason = "`model` is a WithoutFrames, which has no `get_audio_frame_features`."
    assert without_frames == dict.fromkeys(("frame", "detection", "grounding"), reason)
    with pytest.raises(ValueError, match=r"is a TableExtractor and has no tokenizer\. Pass the whole processor"):
        embed_texts(TableModel(eye, eye), TableProcessor().feature_extractor, ["sound 1"])
    embeds = embed_records(TableModel(eye, eye), TableProcessor().feature_extractor, [record(2)]).embeds
    np.testing.assert_array_equal(embeds, eye[[2]])  # sounds need no tokenizer
    assert has_text_encoder(AutoModel.from_config(tiny_slap_config()))
    assert has_text_encoder(AutoModel.from_config(tiny_m2d_clap_config()))


@pytest.mark.parametrize("build_config", [tiny_slap_config, tiny_m2d_clap_config])
def test_systems_of_every_family_do_all_tasks(build_config, tmp_path):
    torch.manual_seed(0)
    model = AutoModel.from_config(build_config()).eval()
    preset = "slap" if model.config.model_type == "slap" else "m2d_clap"
    extractor = LogMelFeatureExtractor.from_preset(preset, mean=-7.0, std=4.0)
    model.save_pretrained(tmp_path)
    AudioLangProcessor(extractor, tiny_processor().tokenizer).save_pretrained(tmp_path)
    loaded, processor = load_model(tmp_path, "cpu")
    assert isinstance(processor, type(AutoProcessor.from_pretrained(tmp_path)))
    sizes = {"test_size": 10, "composition_size": 6, "zero_shot_size": 32}
    report = evaluate_sound_scenes(
        loaded, processor, scene_options={"duration": (1.0, 2.0), "n_events": (1, 2)}, **sizes
    )
    assert report["left_out"] == {}
    tasks = [entry["task"] for entry in report["records"]]
    assert tasks == ["zero_shot", "retrieval", "composition/retrieval", "frame", "detection", "grounding", "probe"]
    frame_record = report["records"][3]
    assert frame_record["frame_rate_hz"] == model.config.audio_config.frame_rate_hz
    json.dumps(report, allow_nan=False)


def test_the_script_evaluates_a_folder_without_text(without_text, capsys):
    _, _, folder = without_text
    path = Path(__file__).parents[2] / "training_scripts" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate_without_text", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main([str(folder), "--zero_shot_size=32", "--duration", "1", "1.6"]) == 0
    stored = json.loads((folder.parent / "evaluation" / "metrics.json").read_text())
    assert set(metrics_of(stored)) == {"probe/accuracy", "probe/balanced_accuracy"}
    assert "Left out: zero_shot" in capsys.readouterr().out
    for more in (["--figure"], ["--data", "my_sounds"]):  # told before the work, and before the data are looked for
        assert script.main([str(folder), *more]) == 2
        assert "has no text encoder" in capsys.readouterr().err
