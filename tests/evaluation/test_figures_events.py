"""The picture of found events: lanes, bars and curves at their times, the log-mel of long files, the time axis."""

import numpy as np
import pytest
from evaluation_fakes import SAMPLING_RATE
from matplotlib.figure import Figure
from transformers import ClapFeatureExtractor

from hf_audiolang.data.audio_io import AudioError
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import figures_events as module
from hf_audiolang.evaluation.events import EventRule
from hf_audiolang.evaluation.figures_events import clock_text, highest_columns, level_overview, plot_events
from hf_audiolang.evaluation.figures_style import draw_level, mel_centres_hz
from hf_audiolang.evaluation.metrics.psds import FrameScores


@pytest.fixture
def laid_out(monkeypatch):
    """The figures as they are before they are rendered, which takes a second."""
    figures = []
    monkeypatch.setattr(module, "save_figure", lambda figure, output: figures.append(figure))
    return figures


class LevelExtractor:
    """The level of a frame of 10 samples is 1000 x their mean in dB, in the second mel bin 20 dB less.

    A clip shorter than `filled` frames is filled with loud ones, as by extractors with a fixed input.
    """

    sampling_rate, hop_length, f_min, f_max, log = SAMPLING_RATE, 10, 20.0, 8000.0, "db"

    def __init__(self, filled=0, max_seconds=None):
        self.filled = filled
        self.max_seconds = max_seconds

    def __call__(self, waveforms, sampling_rate, return_tensors):
        (waveform,) = waveforms
        waveform = waveform[: round(self.max_seconds * SAMPLING_RATE)] if self.max_seconds else waveform
        frames = np.pad(waveform, (0, -len(waveform) % 10)).reshape(-1, 10).mean(axis=1) * 1000  # (T,)
        frames = np.append(frames, np.full(max(0, self.filled - len(frames)), 90.0))
        return {"input_features": np.stack([frames, frames - 20], axis=-1)[None]}


def sound(levels_db, name="some/where/street.wav"):
    """A recording with a frame of 0.1 s for each level."""
    waveform = np.repeat(np.asarray(levels_db, dtype=np.float32) / 1000, 10)
    return Record(name, waveform, SAMPLING_RATE)


def scores_of(rows, seconds):
    scores = np.array(rows, dtype=np.float32).T
    return FrameScores(scores, np.linspace(0, seconds, len(scores) + 1))


def panels(figure):
    """The log-mel's axes, and those of the lanes."""
    first, *lanes = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    return first, lanes


def bars_of(axes):
    """(start, end) of the bars under the curve: those patches that do not fill the lane."""
    boxes = [patch.get_bbox() for patch in axes.patches if hasattr(patch, "get_bbox")]
    return [(round(box.x0, 6), round(box.x1, 6)) for box in boxes if box.height < 0.5]


def curve_of(axes):
    return next(patch for patch in axes.patches if hasattr(patch, "get_data")).get_data()


def test_a_lane_has_the_score_the_threshold_and_a_bar_for_each_event(tmp_path, drawn):
    rows = [[0.1, 0.8, 0.9, -0.4, 0.1, 0.7], [0.0, 0.0, 0.2, 0.2, 0.1, 0.1]]
    rule = EventRule(0.5, join_seconds=0.0)
    path = plot_events(
        sound([10, 20, 30, 20, 10, 0]), LevelExtractor(), scores_of(rows, 0.6), ["$5 dog", "cat"],
        tmp_path / "new" / "events.png", rule=rule,
    )  # fmt: skip
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    mel, (dog, cat) = panels(drawn[0])
    assert bars_of(dog) == [(0.1, 0.3), (0.5, 0.6)]
    assert bars_of(cat) == []
    np.testing.assert_allclose(curve_of(dog).values, [0.1, 0.8, 0.9, 0, 0.1, 0.7], rtol=1e-6)  # no score below 0
    np.testing.assert_allclose(curve_of(dog).edges, np.arange(7) / 10)
    for axes in (dog, cat):
        assert any(set(line.get_ydata()) == {0.5} for line in axes.lines)
        assert axes.get_ylim() == dog.get_ylim()  # lanes can be compared
    assert dog.get_ylim()[1] > 0.9
    assert [text.get_text() for text in dog.texts] == ["$5 dog", "2 found, highest score 0.90"]
    assert not dog.texts[0].get_parse_math()
    assert mel.get_title(loc="left") == "street.wav"
    assert mel.texts[0].get_text() == "0.60 s   ·   2 found   ·   dashed: threshold 0.5"
    assert mel.get_xlim() == (0, 0.6)
    assert cat.get_xlabel() == "time (seconds)"
    np.testing.assert_allclose(mel.images[0].get_array()[0], [-20, -10, 0, -10, -20, -30], atol=1e-3)


def test_of_many_labels_the_eight_with_the_highest_score_are_drawn_in_their_order(tmp_path, laid_out):
    maxima = [0.5, 0.1, 0.4, 0.3, 0.9, 0.2, 0.6, 0.7, 0.8, 0.05]
    labels = [f"label {number} {'x' * 70 if number == 4 else ''}" for number in range(10)]
    scores = scores_of([[0.0, value] for value in maxima], 0.2)
    assert highest_columns(scores.scores) == [0, 2, 3, 4, 5, 6, 7, 8]
    plot_events(sound([10, 20]), LevelExtractor(), scores, labels, tmp_path / "events.png")
    mel, lanes = panels(laid_out[0])
    assert [axes.texts[0].get_text()[:7] for axes in lanes] == [labels[n][:7] for n in (0, 2, 3, 4, 5, 6, 7, 8)]
    assert len(lanes[3].texts[0].get_text()) == 64
    assert mel.texts[0].get_text().endswith("the 8 of 10 labels with the highest score")
    assert "   7 found   " in mel.texts[0].get_text()


def test_of_frames_that_share_a_column_the_highest_score_is_drawn(tmp_path, laid_out, monkeypatch):
    monkeypatch.setattr(module, "MAX_COLUMNS", 50)
    curve = np.zeros(1230)
    curve[614] = 0.8
    plot_events(sound(np.arange(1230) % 40), LevelExtractor(), scores_of([curve], 123.0), ["dog"], tmp_path / "a.png")
    _, (lane,) = panels(laid_out[0])
    values, edges, _ = curve_of(lane)
    assert len(values) == 50
    assert values.max() == pytest.approx(0.8)
    column = int(values.argmax())
    assert edges[column] <= 61.4 <= edges[column + 1]
    assert edges[-1] == 123
    assert lane.get_xlabel() == "time (min:s)"
    labels = [tick.get_text() for tick in lane.get_xticklabels()]
    assert labels == ["0:00", "0:15", "0:30", "0:45", "1:00", "1:15", "1:30", "1:45", "2:00"]


def test_the_overview_is_the_mean_power_of_each_column():
    record = sound([10, 20, 30, 30, 0, 10])
    whole = level_overview(record, LevelExtractor(), 0.6)
    np.testing.assert_allclose(whole, np.array([[10, 20, 30, 30, 0, 10]]).T - [0, 20], atol=1e-3)
    halves = level_overview(record, LevelExtractor(), 0.6, max_columns=2)
    powers = [(10 + 100 + 1000) / 3, (1000 + 1 + 10) / 3]
    np.testing.assert_allclose(halves[:, 0], 10 * np.log10(powers), atol=1e-3)
    filled = level_overview(record, LevelExtractor(filled=100), 0.6)
    np.testing.assert_allclose(filled, whole, atol=1e-3)


def test_a_long_recording_is_read_in_pieces_at_their_places(monkeypatch):
    pieces = []
    original = module.record_waveform

    def remember(record, rate, offset, duration):
        pieces.append((offset, duration))
        return original(record, rate, offset, duration)

    monkeypatch.setattr(module, "record_waveform", remember)
    levels = np.zeros(324)
    levels[[3, 104, 251, 323]] = 60  # in each window and at the very end
    overview = level_overview(sound(levels), LevelExtractor(), 32.4, max_columns=162)
    assert np.flatnonzero(overview[:, 0] > 30).tolist() == [1, 52, 125, 161]
    assert pieces == [(0, 10), (10, 10), (20, 10), (30, 10)]
    # an extractor that cuts what is longer is given what it takes
    np.testing.assert_array_equal(level_overview(sound(levels), LevelExtractor(0, 2.5), 32.4, 162), overview)
    assert pieces[4:6] == [(0, 2.5), (2.5, 2.5)]


def test_silence_is_dark():
    axes = Figure().subplots()
    image = draw_level(axes, np.full((5, 3), -69.0), np.array([100.0, 200.0, 400.0]), 0.5)
    assert image.get_clim() == (-70, 0)
    np.testing.assert_array_equal(image.get_array(), -70)
    other = draw_level(axes, np.array([[-30.0, -20.0, -10.0]]), np.array([100.0, 200.0, 400.0]), 0.1)
    assert other.get_clim() == (-20, 0)


def test_the_mel_bins_of_clap_lie_where_its_filters_peak():
    extractor = ClapFeatureExtractor(truncation="rand_trunc")
    bins_hz = np.linspace(0, 24000, 513)
    peaks = bins_hz[extractor.mel_filters_slaney.argmax(axis=0)]
    np.testing.assert_allclose(mel_centres_hz(extractor, 64), peaks, atol=24)  # half a bin


def test_unreadable_recordings_and_faulty_columns_are_refused(tmp_path):
    scores = scores_of([[0.1] * 5], 0.5)
    with pytest.raises(AudioError, match="does not exist"):
        plot_events(Record("a.wav", tmp_path / "a.wav"), LevelExtractor(), scores, ["dog"], tmp_path / "a.png")
    with pytest.raises(ValueError, match="Give one column per label"):
        plot_events(sound([0] * 5), LevelExtractor(), scores, ["dog", "cat"], tmp_path / "a.png")


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [
        (0, 2, "0:00.00"),
        (75.5, 2, "1:15.50"),
        (59.996, 2, "1:00.00"),
        (9.994, 2, "0:09.99"),
        (3600, 2, "1:00:00.00"),
        (3725.25, 0, "1:02:05"),
        (90, 0, "1:30"),
        (5, 0, "0:05"),
    ],
)
def test_times_read_like_a_clock(seconds, decimals, text):
    assert clock_text(seconds, decimals) == text
