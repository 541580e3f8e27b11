# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Converted Zipformers give what the official code gave for the same weights; other files are refused.

The numbers and how they were made: zipformer_official_outputs.json, record_zipformer_official.py. They are float64,
the model here is float32 where not said otherwise.
"""

import json
from pathlib import Path

import pytest
import torch
import zipformer_official as official
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from hf_audiolang import ZipformerConfig
from hf_audiolang.convert import convert_checkpoint
from hf_audiolang.convert.zipformer_keys import encoder_table
from hf_audiolang.convert.zipformer_layout import encoder_config
from hf_audiolang.convert.zipformer_options import ZipformerOptions

RECORDED = json.loads(Path(__file__).with_name("zipformer_official_outputs.json").read_text(encoding="utf-8"))
FLOAT32 = 2e-5  # the same mathematics in another order and precision, relative to the tensor's norm
HEADS = ("query_head_dim", "value_head_dim", "pos_head_dim")


def head_sizes(name):
    return {key: official.geometry(name)[key][0] for key in HEADS}


def convert(folder, name=official.TINY, state=None, **overrides):
    """Report of the conversion of a file with `state`, written to `folder`/out."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": official.official_state(name) if state is None else state}, folder / "pretrained.pt")
    return convert_checkpoint("zipformer", folder / "pretrained.pt", folder / "out", **head_sizes(name) | overrides)


def runs(name):
    """(arguments of forward, record) of every way in which a model was run."""
    if name != official.CAUSAL:
        return [({}, RECORDED[name])]
    settings = ({"chunk_size": chunk, "left_context_frames": left} for chunk, left in official.CHUNKS)
    return [(s, RECORDED[name][f"chunk {s['chunk_size']} left {s['left_context_frames']}"]) for s in settings]


def batch_of(name):
    features, lengths = official.reference_input(name)
    return features, torch.arange(features.shape[1]) < lengths.unsqueeze(1), lengths


def assert_same(recorded, values, tolerance=FLOAT32):
    """Norm to `tolerance` of itself; products with random tensors and single values to it times their size."""
    found, recorded = torch.tensor(official.fingerprint(values)), torch.tensor(recorded)
    norm = recorded[0].item()
    difference = (found - recorded).abs()
    assert difference[0] <= tolerance * norm
    assert difference[1:].max() <= tolerance * max(1.0, norm / values.numel() ** 0.5)


@pytest.fixture(
    scope="module",
    params=[official.TINY, official.RAGGED, official.CAUSAL, pytest.param(official.FULL_M, marks=pytest.mark.slow)],
)
def case(request, tmp_path_factory):
    """(name, folder of the converted model)."""
    folder = tmp_path_factory.mktemp(request.param)
    convert(folder, request.param)
    return request.param, folder / "out"


def official_padding(folder):
    return AutoModel.from_pretrained(
        folder, config=ZipformerConfig.from_pretrained(folder, exact_padding=False)
    ).eval()


def test_batches_are_as_recorded_in_the_official_padding(case):
    name, folder = case
    model, config = official_padding(folder), ZipformerConfig.from_pretrained(folder, exact_padding=False)
    tagger = AutoModelForAudioClassification.from_pretrained(folder, config=config)
    tagger.config._attn_implementation = model.config._attn_implementation
    features, mask, _ = batch_of(name)
    for options, recorded in runs(name):
        with torch.no_grad():
            output = model(features, mask, output_hidden_states=True, **options)
            logits = tagger(features, mask, **options).logits
        expected = recorded["batch"]
        lengths = output.frame_mask.sum(1)
        assert lengths.tolist() == expected["lengths"]
        assert_same(expected["frames"], official.real_frames(output.frame_features, lengths))
        for stack, states in zip(expected["full_stacks"], output.hidden_states[1:], strict=True):
            assert_same(stack, official.real_frames(states, lengths))
        assert_same(expected["logits"], logits)


def test_every_clip_of_a_batch_is_as_recorded_alone(case):
    name, folder = case
    model = AutoModel.from_pretrained(folder).eval()
    features, mask, _ = batch_of(name)
    for options, recorded in runs(name):
        with torch.no_grad():
            together = model(features, mask, **options).frame_features
        for clip, frames in zip(recorded["clips"], together, strict=False):  # the tiny model has a further short clip
            assert_same(clip["frames"], frames[: clip["lengths"][0]])


def test_official_padding_lets_the_batch_change_a_clip():
    clips = [clip["frames"] for clip in RECORDED[official.TINY]["clips"][:3]]
    joined = sum(clip[0] ** 2 for clip in clips) ** 0.5  # the norm of all frames
    assert abs(joined - RECORDED[official.TINY]["batch"]["frames"][0]) > 0.1


def test_the_shortest_clip_is_as_recorded(tmp_path):
    convert(tmp_path)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    features, _, _ = batch_of(official.TINY)
    recorded = RECORDED[official.TINY]["clips"][3]
    output = model(features[:1, :9])
    assert recorded["lengths"] == [1]
    assert_same(recorded["frames"], output.frame_features[0])


def test_gradients_are_as_recorded(case):
    name, folder = case
    model = official_padding(folder).double()
    features, mask, _ = batch_of(name)
    options = runs(name)[0][0]
    features = features.double().requires_grad_()
    output = model(features, mask, **options)
    official.seeded_loss(output.frame_features, output.frame_mask.sum(1)).backward()
    table, parameters = encoder_table(model.config), dict(model.named_parameters())
    recorded = RECORDED[name]["gradients"]
    expected_input = runs(name)[0][1]["batch"]["input_gradient"]
    found = {key: official.gradient_fingerprint(parameters[table[key][0]].grad, key) for key in recorded}
    found["input"], expected = (
        official.gradient_fingerprint(features.grad, "input"),
        recorded | {"input": expected_input},
    )
    for key, values in expected.items():
        worst = max(abs(a - b) for a, b in zip(found[key], values, strict=True))
        assert worst <= 1e-5 * abs(values[0]) + 1e-9, key


def test_every_number_comes_from_the_shapes(case):
    name, folder = case
    sizes, config = official.geometry(name), ZipformerConfig.from_pretrained(folder)
    for key in ("downsampling_factor", "num_encoder_layers", "encoder_dim", "feedforward_dim", "num_heads"):
        assert list(getattr(config, key)) == list(sizes[key])
    assert list(config.cnn_module_kernel) == list(sizes["cnn_module_kernel"])
    assert (config.pos_dim, config.causal) == (sizes["pos_dim"], sizes["causal"])


def test_report_accounts_for_every_key(tmp_path):
    state = official.official_state(official.RAGGED)
    report = convert(tmp_path, official.RAGGED)
    assert {*report.used, *report.ignored} == set(state)
    unused = {key for key in state if key.endswith(".bypass_scale") and key.split(".")[-3] == "layers"}
    assert set(report.ignored) == unused
    assert report.used["classifier.1.weight"] == ("classifier.linear.weight",)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.feature_size, extractor.edges, extractor.window_type) == (80, "mirror", "povey")


@pytest.mark.parametrize("prefix", ["module.", "audio_encoder.", "encoder.", "speech_encoder."])
def test_encoders_below_a_prefix_are_found(tmp_path, prefix):
    state = {key: value for key, value in official.official_state(official.TINY).items() if "classifier" not in key}
    moved = {prefix + key: value for key, value in state.items()}
    if prefix != "module.":
        moved[f"{prefix}model_batch_count"] = torch.tensor(100000.0)
    convert(tmp_path / "plain", state=state)
    report = convert(tmp_path / "moved", state=moved)
    if prefix == "speech_encoder.":  # what stands around it in the authors' recogniser and aligner
        beside = ("text_encoder.embeddings.weight", "encoder_align2text_proj.1.weight", "decoder.embedding.weight")
        assert {*beside} <= {*convert(tmp_path / "tta", state=moved | dict.fromkeys(beside, torch.zeros(2))).ignored}
    plain, found = (load_file(tmp_path / name / "out" / "model.safetensors") for name in ("plain", "moved"))
    assert plain.keys() == found.keys()
    assert all(torch.equal(plain[key], found[key]) for key in plain)
    assert set(moved) == {*report.used, *report.ignored}


def test_parts_of_a_speech_recogniser_are_left_out_by_name(tmp_path):
    state = {key: value for key, value in official.official_state(official.TINY).items() if "classifier" not in key}
    others = ("decoder.embedding.weight", "joiner.output_linear.weight", "simple_am_proj.weight", "ctc_output.1.bias")
    report = convert(tmp_path, state=state | {key: torch.ones(3, 5) for key in others})
    assert set(others) <= set(report.ignored)
    assert "ignored 3: transducer of a speech recogniser" in report.summary()


def test_average_of_a_training_checkpoint_is_taken_when_asked_for(tmp_path):
    state = official.official_state(official.TINY)
    average = {key: value + 1.0 for key, value in state.items()}
    beside = {"epoch": 3, "exp_dir": Path("exp"), "optimizer": {"state": {}}}  # icefall keeps its arguments there
    torch.save({"model": state, "model_avg": average, **beside}, tmp_path / "epoch-3.pt")
    for name, options in (("last", {}), ("mean", {"average": True})):
        convert_checkpoint(
            "zipformer", tmp_path / "epoch-3.pt", tmp_path / name, **head_sizes(official.TINY), **options
        )
    last, mean = (load_file(tmp_path / name / "model.safetensors") for name in ("last", "mean"))
    assert all(torch.allclose(mean[key], last[key] + 1.0) for key in last)
    torch.save({"model": state}, tmp_path / "pretrained.pt")
    with pytest.raises(ValueError, match=r"no state dict under 'model_avg'.*leave the option out"):
        convert_checkpoint("zipformer", tmp_path / "pretrained.pt", tmp_path / "none", average=True)


def test_safetensors_are_read_too(tmp_path):
    save_file(official.official_state(official.TINY), tmp_path / "model.safetensors")
    options = head_sizes(official.TINY)
    report = convert_checkpoint("zipformer", tmp_path / "model.safetensors", tmp_path / "out", **options)
    assert len(report.used) == len(encoder_table(report.config)) + 2  # and the head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {"bert.weight": torch.ones(2)},
            "no file with a Zipformer.*Pass a file of one of their recipes",
        ),
        (lambda state: state | {f"other.{key}": value for key, value in state.items()}, "holds 2 Zipformers"),
        (lambda state: without(state, "encoder.encoders.1.encoder.layers.0.norm.log_scale"), "lacks 1 of the 238"),
        (lambda state: without(state, "encoder.encoders.0.layers.0.norm.bias"), "norm.bias` is missing"),
        (lambda state: state | {"surplus.weight": torch.ones(2)}, "keys belong to no official Zipformer file"),
        (lambda state: state | {"encoder_embed.out.weight": torch.ones(14, 128 * 17)}, "Pass `num_mel_bins`"),
        (
            lambda state: (
                state | {"encoder.encoders.2.encoder.layers.0.self_attn1.in_proj.weight": torch.ones(19, 18)}
            ),
            "fit no number of heads.*Pass `query_head_dim`",
        ),
        (
            lambda state: state | {"encoder.encoders.0.layers.1.norm.bias": torch.ones(15)},
            "has shape .*where the model has",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, state=change(official.official_state(official.TINY)))
    assert not (tmp_path / "out").exists()


def test_official_head_sizes_are_the_default_and_others_must_be_given(tmp_path):
    state = official.official_state(official.RAGGED)
    assert list(encoder_config(state, ZipformerOptions()).num_heads) == [2, 1, 3, 4, 1, 2]
    with pytest.raises(ValueError, match="Pass `query_head_dim`, `value_head_dim` and `pos_head_dim`"):
        encoder_config(official.official_state(official.TINY), ZipformerOptions())


def without(state, key):
    return {name: value for name, value in state.items() if name != key}
