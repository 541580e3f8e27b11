"""Frame scores of recordings of any length: which window gives which frame, fixed inputs, labels that are refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableModel, TableProcessor, unit
from test_clap_surface import clap  # noqa: F401 - a fixture
from tiny import tiny_m2d_clap_config, tiny_mga_clap_config, tiny_processor, tiny_slap_config
from torch import nn
from transformers import AutoModel

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor
from hf_audiolang.data.audio_io import AudioError
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import frame_scores as module
from hf_audiolang.evaluation.embed import AudioOptions, evaluation_mode
from hf_audiolang.evaluation.frame_scores import FrameScoreOptions, embed_labels, score_frames, score_records
from hf_audiolang.evaluation.frame_times import num_frames_in
from hf_audiolang.evaluation.frames import embed_frames, frame_labels
from hf_audiolang.evaluation.zero_shot import embed_classes

TABLE = unit(50, 6, seed=0)
TEXTS = unit(5, 6, seed=1)


def sound(rows, name="clip"):
    """A recording whose frames name rows of the table."""
    return Record(name, np.repeat(np.array(rows, dtype=np.float32) / 100, FRAME_SAMPLES), SAMPLING_RATE)


def random_rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, 50, count)


class RaggedModel(TableModel):
    """As TableModel, for clips that end inside a frame; remembers its inputs."""

    frame_samples = FRAME_SAMPLES

    def __init__(self, audio_table=TABLE, text_table=TABLE):
        super().__init__(audio_table, text_table)
        self.inputs = []

    def get_audio_frame_features(self, input_features, input_features_mask):
        self.inputs.append(input_features.clone())
        missing = -input_features.shape[1] % self.frame_samples
        samples = nn.functional.pad(input_features * input_features_mask, (0, missing))
        counts = nn.functional.pad(input_features_mask, (0, missing)).unflatten(1, (-1, self.frame_samples)).sum(-1)
        frames = samples.unflatten(1, (-1, self.frame_samples)).sum(-1) / counts.clamp(min=1)
        return SimpleNamespace(frame_features=self.features_of(frames), frame_mask=counts > 0)

    def features_of(self, frames):
        return self.dropout(self.audio_table[(frames * 100).round().long()])


class PositionModel(RaggedModel):
    """The embedding of a frame is its number in the window that was encoded."""

    def features_of(self, frames):
        return torch.arange(frames.shape[1], dtype=torch.float32).expand(frames.shape)[..., None]


class FixedExtractor:
    """Fills clips with zeros to `min_seconds`, and calls the filling real, as a fixed input does."""

    sampling_rate = SAMPLING_RATE

    def __init__(self, min_seconds, max_seconds):
        self.min_seconds, self.max_seconds = min_seconds, max_seconds

    def num_frames(self, num_samples):
        return min(max(num_samples, round(self.min_seconds * SAMPLING_RATE)), round(self.max_seconds * SAMPLING_RATE))

    def __call__(self, waveforms, sampling_rate, return_tensors):
        lengths = [self.num_frames(len(waveform)) for waveform in waveforms]
        batch = torch.zeros(len(waveforms), max(lengths))
        for row, waveform in zip(batch, waveforms, strict=True):
            row[: min(len(waveform), len(row))] = torch.as_tensor(waveform[: len(row)])
        return {
            "input_features": batch,
            "input_features_mask": torch.arange(max(lengths)) < torch.tensor(lengths)[:, None],
        }


def fixed_processor(min_seconds, max_seconds):
    processor = TableProcessor()
    processor.feature_extractor = FixedExtractor(min_seconds, max_seconds)
    return processor


@pytest.mark.parametrize(("window", "overlap"), [(None, 0), (1.0, 0), (1.29, 0), (2.3, 0), (1.0, 0.5), (0.7, 0.93)])
def test_windows_give_the_scores_of_the_whole(window, overlap):
    rows = random_rows(47)
    options = FrameScoreOptions(window, overlap, reading=AudioOptions(batch_seconds=2.6))
    model = RaggedModel().train()  # dropout shows unless evaluation mode is on
    found = score_frames(model, TableProcessor(), sound(rows), TEXTS, options)
    np.testing.assert_allclose(found.scores, TABLE[rows] @ TEXTS.T, atol=1e-6)
    np.testing.assert_allclose(found.edges, np.arange(48) / 10, atol=1e-12)
    assert model.training
    if window:
        longest = int(window * 10 + 1e-9) * FRAME_SAMPLES  # whole frames
        assert {batch.shape[1] for batch in model.inputs} == {longest}
        assert max(batch.numel() for batch in model.inputs) <= 260
        assert max(len(batch) for batch in model.inputs) == 260 // longest  # several windows of a forward pass


def test_windows_start_on_whole_frames_and_the_last_one_is_full():
    found = score_frames(
        PositionModel(), TableProcessor(), sound(np.zeros(47)), np.ones((1, 1)), FrameScoreOptions(1.29)
    )
    # windows of 12 frames from 0, 12, 24 and, moved back from 36, from 35: frame 35 is in two
    expected = [*range(12), *range(12), *range(11), (11 + 0) / 2, *range(1, 12)]
    assert found.scores[:, 0].tolist() == expected
    overlapped = score_frames(
        PositionModel(), TableProcessor(), sound(np.zeros(20)), np.ones((1, 1)), FrameScoreOptions(0.8, 0.4)
    )
    positions = {frame: [frame - start for start in (0, 5, 10, 12) if 0 <= frame - start < 8] for frame in range(20)}
    assert overlapped.scores[:, 0].tolist() == pytest.approx([np.mean(positions[frame]) for frame in range(20)])


def test_whole_frames_are_counted_past_rounding():
    model = PositionModel()
    model.frame_samples, model.config.audio_config.frame_rate_hz = 16, 6.25
    assert 4.64 * 6.25 < 29  # of floating point
    clip = Record("clip", np.zeros(928, dtype=np.float32), SAMPLING_RATE)
    found = score_frames(model, TableProcessor(), clip, np.ones((1, 1)), FrameScoreOptions(4.64))
    assert found.scores[:, 0].tolist() == [*range(29), *range(29)]


def test_a_clip_as_long_as_a_window_is_one_piece():
    rows = random_rows(13)
    clip = Record("clip", sound(rows).audio[:125], SAMPLING_RATE)  # 12.5 frames
    model = RaggedModel()
    found = score_frames(model, TableProcessor(max_seconds=1.25), clip, TEXTS)
    assert [batch.shape for batch in model.inputs] == [(1, 125)]
    np.testing.assert_allclose(found.scores, TABLE[rows] @ TEXTS.T, atol=1e-6)


def test_a_file_is_read_window_by_window(tmp_path, monkeypatch):
    rows = random_rows(93)
    soundfile.write(tmp_path / "long.wav", sound(rows).audio, SAMPLING_RATE, "FLOAT")
    asked = []

    def read(record, sampling_rate, offset=0.0, duration=None):
        asked.append((offset, duration))
        return original(record, sampling_rate, offset, duration)

    original = module.record_waveform
    monkeypatch.setattr(module, "record_waveform", read)
    record = Record("long", tmp_path / "long.wav", duration=1234.0)  # the file's header counts
    found = score_frames(RaggedModel(), TableProcessor(max_seconds=2.0), record, TEXTS)
    np.testing.assert_allclose(found.scores, TABLE[rows] @ TEXTS.T, atol=1e-6)
    assert found.edges[-1] == pytest.approx(9.3)
    assert asked == [(0.0, 2.0), (2.0, 2.0), (4.0, 2.0), (6.0, 2.0), (pytest.approx(7.3), 2.0)]


def test_the_last_frame_ends_with_the_clip_and_the_shortest_clips_have_one():
    rows = random_rows(4)
    clip = Record("partial", sound(rows).audio[:34], SAMPLING_RATE)
    found = score_frames(RaggedModel(), TableProcessor(), clip, TEXTS)
    np.testing.assert_allclose(found.scores, TABLE[rows] @ TEXTS.T, atol=1e-6)
    assert found.edges.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.34])
    for num_samples in (10, 7, 1):
        clip = Record("short", sound([7]).audio[:num_samples], SAMPLING_RATE)
        found = score_frames(RaggedModel(), TableProcessor(), clip, TEXTS)
        np.testing.assert_allclose(found.scores, TABLE[[7]] @ TEXTS.T, atol=1e-6)
        assert found.edges.tolist() == [0, num_samples / SAMPLING_RATE]


class LateModel(RaggedModel):
    """Its frame 0 begins 0.03 s into the clip, as that of an encoder whose first convolutions are not padded."""

    def __init__(self):
        super().__init__()
        numbers = dict(vars(self.config.audio_config))
        self.config = SimpleNamespace(audio_config=SimpleNamespace(**numbers | {"frame_offset_seconds": 0.03}))


@pytest.mark.parametrize("window", [None, 1.0])
def test_frames_begin_at_the_encoders_offset(window):
    rows = random_rows(47)
    options = FrameScoreOptions(window, 0.0)
    plain, late = (
        score_frames(model, TableProcessor(), sound(rows), TEXTS, options) for model in (RaggedModel(), LateModel())
    )
    np.testing.assert_allclose(late.edges, [0.0, *(0.03 + np.arange(1, 47) / 10), 4.7], atol=1e-12)
    np.testing.assert_allclose(late.scores, plain.scores)
    assert frame_labels_of(late.edges) == [0, 1]
    assert num_frames_in(1.02, 10.0) == 11  # a frame that begins at 1.0 s, or at 1.03 s after the end
    assert num_frames_in(1.02, 10.0, 0.03) == 10


def frame_labels_of(edges):
    """Frames that the second from 0.08 s to 0.2 s is in the middle of, by edges and by frame_labels alike."""
    record = Record("clip", None, events=({"label": "a", "onset": 0.08, "offset": 0.2},))
    positives = frame_labels(record, ["a"], len(edges) - 1, 10.0, 0.03)[:, 0]
    middles = 0.03 + (np.arange(len(edges) - 1) + 0.5) / 10  # of the frames themselves: the first begins at 0.03
    assert positives.tolist() == ((middles >= 0.08) & (middles < 0.2)).tolist()
    return np.flatnonzero(positives).tolist()


def test_a_short_clip_is_repeated_for_a_fixed_input_and_frames_after_its_end_are_dropped():
    rows = [3, 5, 7, 2]
    model, processor = RaggedModel(), fixed_processor(1.0, 1.0)
    clip = Record("short", sound(rows).audio[:37], SAMPLING_RATE)
    found = score_frames(model, processor, clip, TEXTS)
    np.testing.assert_array_equal(model.inputs[0][0], np.resize(clip.audio, 100))  # not zeros
    assert found.edges.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.37])
    np.testing.assert_allclose(found.scores[:3], TABLE[rows[:3]] @ TEXTS.T, atol=1e-6)
    embedded = embed_frames(model, processor, [clip, sound(random_rows(13))])
    assert [len(frames) for frames in embedded.frames] == [4, 10]  # of the longer one the first second
    np.testing.assert_array_equal(model.inputs[1][1], np.resize(clip.audio, 100))
    np.testing.assert_allclose(embedded.frames[0] @ TEXTS.T, found.scores, atol=1e-6)
    # control: an extractor of any length leaves the clip as it is
    model, clips = RaggedModel(), [sound([1, 2]), sound(random_rows(13))]
    assert [len(frames) for frames in embed_frames(model, TableProcessor(), clips).frames] == [2, 13]
    assert model.inputs[0].shape == (2, 130)


class StretchingModel(PositionModel):
    """Eight frames whatever the length of the input."""

    def __init__(self):
        super().__init__()
        self.config.audio_config = SimpleNamespace(
            frame_rate_of=lambda num_input_frames: 8 * SAMPLING_RATE / num_input_frames
        )

    def get_audio_frame_features(self, input_features, input_features_mask):
        self.inputs.append(input_features)
        mask = torch.ones(len(input_features), 8, dtype=torch.bool)
        return SimpleNamespace(frame_features=self.features_of(torch.zeros(len(input_features), 8)), frame_mask=mask)


def test_the_frame_rate_of_a_stretched_input_is_that_of_the_clip():
    model, processor, ones = StretchingModel(), fixed_processor(0.0, 2.0), np.ones((1, 1))
    clips = [sound(np.zeros(length), str(length)) for length in (4, 10, 4)]
    found = score_records(model, processor, clips, lambda _: ones)
    assert [item.edges[1] for item in found.frame_scores] == pytest.approx([0.05, 0.125, 0.05])
    assert [batch.shape[1] for batch in model.inputs] == [100, 40]  # batch mates of one length
    embedded = embed_frames(model, processor, clips)
    assert embedded.frame_rates_hz == pytest.approx([20.0, 8.0, 20.0])
    assert [len(frames) for frames in embedded.frames] == [8, 8, 8]
    # windows of 2 s: 4 frames a second; the last one, 1.97 s of sound, is filled so that its frames last as long
    model.inputs.clear()
    long = Record("long", sound(np.zeros(53)).audio[:522], SAMPLING_RATE)
    found = score_frames(model, processor, long, ones)
    assert {batch.shape[1] for batch in model.inputs} == {200}
    assert found.edges.tolist() == pytest.approx([*np.arange(21) / 4, 5.22])
    assert found.scores[:, 0].tolist() == [*range(8), *range(5), (5 + 0) / 2, (6 + 1) / 2, (7 + 2) / 2, *range(3, 8)]


EXTRACTORS = {
    "slap": (tiny_slap_config, LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=4.0)),
    "m2d_clap": (tiny_m2d_clap_config, LogMelFeatureExtractor.from_preset("m2d_clap")),
    # 251 of the tiny encoder's 256 input frames
    "mga_clap": (
        tiny_mga_clap_config,
        LogMelFeatureExtractor.from_preset("mga_clap", feature_size=16, min_seconds=2.5, max_seconds=2.5),
    ),
}


@pytest.mark.parametrize("family", EXTRACTORS)
def test_systems_score_clips_of_every_length_as_their_frames_say(family):
    torch.manual_seed(0)
    build_config, extractor = EXTRACTORS[family]
    model, processor = (
        AutoModel.from_config(build_config()).eval(),
        AudioLangProcessor(extractor, tiny_processor().tokenizer),
    )
    texts = embed_labels(model, processor, ["dog", "cat", "rain"])
    rate, generator = model.config.audio_config.frame_rate_hz, np.random.default_rng(0)
    if family == "mga_clap":
        rate = model.config.audio_config.frame_rate_of(251)
    for seconds in (0.001, 0.1, 0.97, 2.5, 7.3):
        waveform = generator.standard_normal(max(1, round(seconds * extractor.sampling_rate))).astype(np.float32) / 10
        clip = Record("noise", waveform, extractor.sampling_rate)
        found = score_frames(model, processor, clip, texts)
        num_frames = max(1, int(np.ceil(round(len(waveform) / extractor.sampling_rate * rate, 6))))
        assert found.scores.shape == (num_frames, 3)
        assert found.edges[-1] == pytest.approx(len(waveform) / extractor.sampling_rate)
        assert (np.diff(found.edges) > 0).all()
        filled = np.resize(waveform, max(len(waveform), round(extractor.min_seconds * extractor.sampling_rate)))
        with evaluation_mode(model):
            output = model.get_audio_frame_features(
                **extractor([filled], sampling_rate=extractor.sampling_rate, return_tensors="pt")
            )
        expected = output.frame_features[0][output.frame_mask[0]].numpy()[:num_frames] @ texts.T
        np.testing.assert_allclose(found.scores[: len(expected)], expected, atol=1e-5)
        missing = len(found.scores) - len(expected)
        assert missing <= 1 or (family == "mga_clap" and seconds > 2.5)  # an extractor without padding gives one less
        if missing == 1:
            np.testing.assert_array_equal(found.scores[-1], found.scores[-2])


def test_clap_is_asked_for_a_clip_around_each_frame(clap, monkeypatch):  # noqa: F811
    model, processor = clap
    batch_sizes = []

    def embed(input_features, **inputs):
        batch_sizes.append(len(input_features))
        return type(model).get_audio_features(model, input_features, **inputs)

    monkeypatch.setattr(model, "get_audio_features", embed)
    noise = np.random.default_rng(0).standard_normal(2 * 48000 + 4800).astype(np.float32) / 10
    texts = embed_labels(model, processor, ["a dog", "rain"])
    record = Record("noise", noise, 48000)
    options = FrameScoreOptions(
        clip_window_seconds=0.8, clip_hop_seconds=0.5, reading=AudioOptions(batch_seconds=20.0)
    )
    found = score_frames(model, processor, record, texts, options)
    assert batch_sizes == [2, 2, 1]  # CLAP fills each clip to 10 s
    assert found.edges.tolist() == pytest.approx([0, 0.5, 1.0, 1.5, 2.0, 2.1])
    starts = [0.0, 0.35, 0.85, 1.3, 1.3]  # centred on .25, .75, ...; inside the file
    pieces = [noise[round(start * 48000) : round((start + 0.8) * 48000)] for start in starts]
    with torch.no_grad():
        inputs = processor.feature_extractor(pieces, sampling_rate=48000, return_tensors="pt")
        embeds = nn.functional.normalize(model.get_audio_features(**inputs).pooler_output, dim=-1).numpy()
    np.testing.assert_allclose(found.scores, embeds @ texts.T, atol=1e-5)
    assert np.abs(found.scores[0] - found.scores[1]).max() > 1e-5  # control: clips differ
    short = score_frames(model, processor, Record("short", noise[:4800], 48000), texts)
    assert short.edges.tolist() == [0, 0.1]
    # clips are no longer than CLAP takes: beyond it would cut at random
    wide = FrameScoreOptions(clip_window_seconds=12.0, clip_hop_seconds=4.0)
    long = Record("long", np.resize(noise, 11 * 48000), 48000)
    again = [score_frames(model, processor, long, texts, wide).scores for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_a_clip_that_breaks_in_a_later_window_is_left_out():
    broken = sound(random_rows(30), "broken")
    broken.audio[250] = np.nan
    clips = [sound(random_rows(30), "first"), broken, sound(random_rows(8, seed=1), "last")]
    options = FrameScoreOptions(1.0)
    found = score_records(
        RaggedModel(), TableProcessor(), clips, lambda record: TEXTS[: len(record.id)], options=options
    )
    assert [record.id for record in found.records] == ["first", "last"]
    assert [item.scores.shape for item in found.frame_scores] == [(30, 5), (8, 4)]  # each clip has its own texts
    assert [(record.audio, record.duration) for record in found.records] == [(None, 3.0), (None, 0.8)]
    assert "broken: " in found.skipped[0]
    assert "NaN" in found.skipped[0]
    with pytest.raises(AudioError, match="`broken` holds NaN"):
        score_frames(RaggedModel(), TableProcessor(), broken, TEXTS, options)
    for audio in (None, np.zeros(0, dtype=np.float32)):
        with pytest.raises(AudioError, match=r"`empty` (has no audio|holds 0 samples)"):
            score_frames(RaggedModel(), TableProcessor(), Record("empty", audio, SAMPLING_RATE), TEXTS)


def test_labels_are_prompts_of_their_own_words():
    model, processor = RaggedModel(), TableProcessor()
    np.testing.assert_array_equal(embed_labels(model, processor, ["sound_3", "7"]), TABLE[[3, 7]])
    templates = ["{label}", "noise {label}1"]
    np.testing.assert_allclose(
        embed_labels(model, processor, ["sound 3", "1"], templates, str.upper),
        embed_classes(model, processor, ["sound 3", "1"], templates),
    )


def test_faulty_labels_are_refused_by_name():
    model, processor = RaggedModel(), TableProcessor()
    for labels, message in (
        ([], "`labels` must be a list of texts, got \\[\\]"),
        ("dog 1", "must be a list of texts, got 'dog 1'"),
        (["dog 1", " "], "a blank text at position 1"),
        (["dog 1", "cat 2", "dog 1"], "got \\['dog 1'\\] more than once"),
        (["dog 1", "a " * 70 + "2"], "holds 'a a .*a\\.\\.\\.', which makes a prompt of 71 tokens.*at most 64"),
    ):
        with pytest.raises(ValueError, match=message):
            embed_labels(model, processor, labels)
    model.config.text_config = SimpleNamespace(max_position_embeddings=5)
    with pytest.raises(ValueError, match=r"'a a a a 4', which makes a prompt of 6 tokens.*at most 5"):
        embed_labels(model, processor, ["a a 4", "a a a a 4"], "x {label}")
    with pytest.raises(ValueError, match="has no tokenizer"):
        embed_labels(model, processor.feature_extractor, ["dog 1"])


def test_faulty_options_and_texts_are_refused():
    for name in ("window_seconds", "clip_window_seconds", "clip_hop_seconds"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive, got 0"):
            FrameScoreOptions(**{name: 0})
    with pytest.raises(ValueError, match=r"`overlap` must lie in \[0, 1\), got 1"):
        FrameScoreOptions(overlap=1)
    with pytest.raises(ValueError, match=r"must be \(C, 6\), got the shape \(3, 4\)"):
        score_frames(RaggedModel(), TableProcessor(), sound([1]), np.ones((3, 4)))
