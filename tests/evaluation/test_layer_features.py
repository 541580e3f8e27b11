# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Clip features, layers and timed frames of frozen encoders: every family, long clips, and what is stored."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import SAMPLING_RATE, unit
from probe_fakes import FrameEncoder, FrameExtractor, LayerEncoder, System, clip
from tiny import (
    tiny_ast_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_slap_audio_config,
    tiny_whisper_config,
    tiny_zipformer_config,
)
from transformers import AutoModel

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import frozen_features
from hf_audiolang.evaluation.clip_cuts import UnitLength, Windows
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.frame_scores import FrameScoreOptions
from hf_audiolang.evaluation.frozen_features import _state_mask as state_mask
from hf_audiolang.evaluation.frozen_features import clip_features, layer_features, timed_frames

TABLES = [3 * unit(40, 5, seed=seed) for seed in range(3)]
FAMILIES = {
    "slap": (tiny_slap_audio_config, "slap", {}),
    "m2d": (tiny_m2d_clap_audio_config, "m2d_clap", {}),
    "zipformer": (tiny_zipformer_config, "captionstew", {}),
    "ast": (tiny_ast_config, "m2d_clap", {"feature_size": 36}),
    "whisper": (tiny_whisper_config, "m2d_clap", {"feature_size": 20}),
}


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * 16000)).astype(np.float32) / 10
    return Record(id=f"{seed}", audio=samples, sampling_rate=16000)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_the_means_over_the_real_tokens_of_each_clip_alone(family):
    build, preset, numbers = FAMILIES[family]
    torch.manual_seed(0)
    encoder = AutoModel.from_config(build()).eval()
    extractor = LogMelFeatureExtractor.from_preset(preset, **{"mean": -7.0, "std": 9.0, **numbers})
    records = [noise(seconds, seed) for seed, seconds in enumerate((0.7, 1.0, 0.4))]
    found = layer_features(encoder, extractor, records)
    assert found.lengths.tolist() == [1, 1, 1]
    for record, layers in zip(records, found.rows, strict=True):
        inputs = extractor([record.audio], sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            output = encoder(**inputs, output_hidden_states=True)
        mask = output.token_mask[0]
        expected = torch.stack([state[0][mask].mean(0) for state in output.hidden_states])
        np.testing.assert_allclose(layers, expected.numpy(), atol=3e-5)
    steps = np.abs(np.diff(found.rows, axis=1)).max((0, 2))
    assert steps.min() > 1e-3  # control: no layer is the one before
    if family in ("slap", "whisper"):  # the others join bands or stacks, or normalise once more
        np.testing.assert_allclose(found.rows[:, -1], clip_features(encoder, extractor, records).rows, atol=3e-5)


def test_layers_of_different_widths_and_grids_are_filled_up_with_zeros():
    torch.manual_seed(0)
    encoder = AutoModel.from_config(tiny_htsat_config()).eval()
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap", feature_size=16)
    record = noise(0.6)
    (layers,) = layer_features(encoder, extractor, [record]).rows
    with torch.no_grad():
        inputs = extractor([record.audio], sampling_rate=16000, return_tensors="pt")
        states = encoder(**inputs, output_hidden_states=True).hidden_states
    assert [state.shape[2] for state in states] == [12, 12, 24, 24, 24]
    for layer, state in zip(layers, states, strict=True):
        np.testing.assert_allclose(layer[: state.shape[2]], state[0].mean(0).numpy(), atol=1e-5)
        assert not layer[state.shape[2] :].any()


def test_a_finer_layer_has_its_mask_row_after_row():
    frame_mask = torch.tensor([[True, True, False], [True, False, False]])
    output = SimpleNamespace(frame_mask=frame_mask, token_mask=frame_mask.repeat(1, 2))  # 2 rows x 3 columns
    columns = torch.arange(6.0).repeat(2, 4).unsqueeze(-1)  # 4 rows x 6 columns, the number of the column
    mask = state_mask(columns, output)
    assert columns[0][mask[0]].mean() == 1.5
    assert columns[1][mask[1]].mean() == 0.5
    assert mask.sum(1).tolist() == [16, 8]
    with pytest.raises(ValueError, match=r"layer of `model` has 12 tokens where the last one has 6: .*`layer` 'clip'"):
        state_mask(torch.zeros(2, 12, 1), output)


def test_an_encoder_without_layers_is_refused():
    class Silent(LayerEncoder):
        def forward(self, output_hidden_states, **inputs):
            return super().forward(**inputs)

    with pytest.raises(ValueError, match=r"`model` gives no `hidden_states`, got None\. Probe its clip features"):
        layer_features(Silent(TABLES), FrameExtractor(), [clip([3])])


def test_clip_features_and_layers_have_a_row_for_each_piece():
    encoder, long = LayerEncoder(TABLES), clip([3, 3, 9, 9, 4, 4, 8])
    found = clip_features(System(encoder), FrameExtractor(), [long, clip([5])], cut=Windows(0.2, 0.6))
    assert found.lengths.tolist() == [3, 1]
    np.testing.assert_allclose(found.rows, TABLES[2][[3, 9, 4, 5]], atol=1e-6)
    np.testing.assert_allclose(found.clip_means()[0], TABLES[2][[3, 9, 4]].mean(0), atol=1e-6)
    layers = layer_features(encoder, FrameExtractor(), [long, clip([5])], cut=Windows(0.2, 0.6))
    np.testing.assert_allclose(layers.rows, np.stack([t[[3, 9, 4, 5]] for t in TABLES], axis=1), atol=1e-6)
    np.testing.assert_allclose(layers.clip_means()[0], [t[[3, 9, 4]].mean(0) for t in TABLES], atol=1e-6)
    # a unit longer than the model's limit is cut once more, into equal pieces
    found = clip_features(encoder, FrameExtractor(max_seconds=0.3), [clip([3] * 5)], cut=UnitLength(0.6))
    np.testing.assert_allclose(found.rows, [TABLES[2][3], TABLES[2][[3, 3, 0]].mean(0)], atol=1e-6)


def test_every_kind_is_stored_and_a_changed_cut_is_another_file(tmp_path):
    encoder, extractor, records = LayerEncoder(TABLES), FrameExtractor(), [clip([3, 4]), clip([9, 9, 7, 8])]
    records[1:1] = [Record(id="bad", audio=np.full(10, np.nan, np.float32), sampling_rate=SAMPLING_RATE)]

    def num_encoded(ask):
        encoder.num_clips = 0
        found = ask()
        assert found.skipped[0].startswith("bad: ")
        assert [record.id for record in found.records] == ["clip [3, 4]", "clip [9, 9, 7, 8]"]
        assert found.indices.tolist() == [0, 2]
        return encoder.num_clips, found

    options = AudioOptions()
    asks = [
        lambda: clip_features(encoder, extractor, records, options, tmp_path),
        lambda: clip_features(encoder, extractor, records, options, tmp_path, cut=UnitLength(0.3)),
        lambda: clip_features(encoder, extractor, records, options, tmp_path, cut=UnitLength(0.3, 42)),
        lambda: clip_features(encoder, extractor, records, options, tmp_path, cut=UnitLength(0.3, 43)),
        lambda: layer_features(encoder, extractor, records, options, tmp_path),
        lambda: timed_frames(encoder, extractor, records, FrameScoreOptions(), tmp_path),
        lambda: timed_frames(encoder, extractor, records, FrameScoreOptions(window_seconds=0.3), tmp_path),
    ]
    first = [num_encoded(ask) for ask in asks]
    assert [count for count, _ in first] == [2, 2, 2, 2, 2, 2, 3]
    assert len(list(tmp_path.iterdir())) == len(asks)
    for ask, (_, found) in zip(asks, first, strict=True):
        count, again = num_encoded(ask)
        assert count == 0
        np.testing.assert_array_equal(again.rows, found.rows)
        assert again.records == found.records
        assert (again.rates_hz is None) == (found.rates_hz is None)
    np.testing.assert_array_equal(num_encoded(asks[5])[1].rates_hz, [10, 10])
    with torch.no_grad():
        encoder.lower[0][-1, -1] += 1e-3
    assert num_encoded(asks[4])[0] == 2


def test_timed_frames_are_those_of_the_clip_from_its_beginning_to_its_end():
    rows = [*range(1, 20), 30, 31]
    encoder = LayerEncoder(TABLES)
    found = timed_frames(encoder, FrameExtractor(max_seconds=0.8), [clip([5, 6]), clip(rows)])
    assert found.lengths.tolist() == [2, 21]
    np.testing.assert_allclose(found.rows, TABLES[2][[5, 6, *rows]], atol=1e-6)
    np.testing.assert_array_equal(found.rates_hz, [10, 10])
    assert found.records[1].duration == pytest.approx(2.1)


def test_a_stretching_encoder_gives_the_frames_of_the_clip_alone():
    torch.manual_seed(0)
    config = tiny_htsat_config()
    encoder = AutoModel.from_config(config).eval()
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap", feature_size=16, max_seconds=1.5, min_seconds=1.5)
    records = [noise(0.6), noise(1.5, 1)]
    found = timed_frames(encoder, extractor, records)
    rate = config.frame_rate_of(extractor.num_frames(24000))
    np.testing.assert_allclose(found.rates_hz[1], rate)
    assert found.lengths.tolist() == [int(np.ceil(0.6 * found.rates_hz[0])), int(np.ceil(1.5 * rate - 1e-6))]


def test_records_of_one_id_keep_their_places(tmp_path):
    bad = Record(id="same", audio=np.full(10, np.nan, np.float32), sampling_rate=SAMPLING_RATE)
    records = [clip([3], id="same"), clip([4], id="same"), bad, clip([9], id="last")]
    options = FrameScoreOptions(reading=AudioOptions(max_bad_fraction=1.0))
    found = timed_frames(LayerEncoder(TABLES), FrameExtractor(), records, options)
    assert found.indices.tolist() == [0, 1, 3]


def test_the_encoder_of_every_model_is_found(tmp_path):
    encoder = FrameEncoder(TABLES[0])
    assert frozen_features.encoder_of(encoder) is encoder
    assert frozen_features.encoder_of(System(encoder)) is encoder
    captioner = SimpleNamespace(base_model=System(encoder))
    assert frozen_features.encoder_of(captioner) is encoder
    soundfile.write(tmp_path / "a.wav", np.full(20, 0.03), SAMPLING_RATE, "FLOAT")
    found = clip_features(System(LayerEncoder(TABLES)), FrameExtractor(), [Record(id="a", audio=tmp_path / "a.wav")])
    np.testing.assert_allclose(found.rows, TABLES[2][[3]], atol=1e-6)
