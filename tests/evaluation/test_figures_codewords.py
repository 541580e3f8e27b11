"""Pictures of codewords: what is drawn where, at which times, and the hint where matplotlib is missing."""

import sys

import numpy as np
import pytest
from codeword_fakes import CodebookProcessor, clip

from hf_audiolang.evaluation.block_maps import BlockMaps
from hf_audiolang.evaluation.codewords import CodewordUsage
from hf_audiolang.evaluation.figures_codewords import plot_block_maps, plot_codeword_frames, plot_usage
from hf_audiolang.evaluation.metrics import MissingResourceError
from hf_audiolang.evaluation.metrics.detections import FrameScores

EVENTS = (
    {"label": "dog_bark", "onset": 0.15, "offset": 0.3},
    {"label": "rain", "onset": 0.0, "offset": 0.1},
    {"label": "dog_bark", "onset": 0.35, "offset": 0.4},
)


def usage_of(audio_counts, text_counts, num_captions=10):
    audio, text = np.array(audio_counts), np.array(text_counts)
    return CodewordUsage(4, num_captions, audio, text, audio / 2, text / 3, [], [], [], 60.0)


def visible(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_usage_is_sorted_by_clips_with_the_dead_at_the_end(tmp_path, drawn):
    path = plot_usage(usage_of([1, 0, 4, 0, 2], [5, 3, 10, 0, 0]), tmp_path / "new" / "usage.png", note="n")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    counts, weights = visible(drawn[0])
    np.testing.assert_allclose(counts.lines[0].get_ydata(), [100, 50, 25, 0, 0])
    # codewords 2, 4, 0, then 1, which captions have, then the dead one
    np.testing.assert_allclose(counts.collections[0].get_offsets()[:, 1], [100, 0, 50, 30, 0])
    for axes in (counts, weights):
        (shade,) = axes.patches
        assert (shade.get_x(), shade.get_width()) == (4, 1)
    assert counts.get_title(loc="left") == "1 of 5 codewords are dead (20.0%, grey)"
    assert (
        "4 clips with 1.75 codewords each on average   ·   10 captions with 1.8   ·   n" in counts.texts[0].get_text()
    )
    np.testing.assert_allclose(weights.lines[0].get_ydata(), [2.5, 1.25, 0.625, 0.01, 0.01])  # 4 / 2 / 4 clips * 5
    assert weights.collections[0].get_offsets()[0, 1] == pytest.approx(10 / 3 / 10 * 5)
    assert weights.get_yscale() == "log"


def test_usage_without_dead_codewords_or_captions_shows_neither(tmp_path, drawn):
    plot_usage(usage_of([1, 2, 3], [0, 0, 0], num_captions=0), tmp_path / "usage.png")
    counts = visible(drawn[0])[0]
    assert not counts.patches
    assert not counts.collections
    assert counts.get_title(loc="left") == "None of the 3 codewords is dead"
    assert "captions" not in counts.texts[0].get_text()


def test_frames_show_curves_over_the_true_events(tmp_path, drawn):
    record = clip(1, 2, 3, 4, captions=("a dog barks in the rain",), events=EVENTS)
    cosines = np.array([[0.5, -0.2], [0.1, 0.0], [0.9, 0.3], [0.4, 0.1]])
    scores = FrameScores(cosines, np.array([0, 0.1, 0.2, 0.3, 0.4]))
    plot_codeword_frames(record, CodebookProcessor(), scores, ["first", "second"], tmp_path / "f.png", note="n")
    mel, events, first, second = visible(drawn[0])
    assert mel.get_title(loc="left") == "“a dog barks in the rain”"
    assert mel.texts[0].get_text() == "n"
    assert [tick.get_text() for tick in events.get_yticklabels()] == ["rain", "dog bark"]  # by time
    spans = [[round(v, 3) for v in box.vertices[[0, 2], 0]] for bars in events.collections for box in bars.get_paths()]
    assert sorted(spans) == [[0.0, 0.1], [0.15, 0.3], [0.35, 0.4]]
    for axes, name, column in ((first, "first", 0), (second, "second", 1)):
        stairs = next(patch for patch in axes.patches if hasattr(patch, "get_data"))
        np.testing.assert_allclose(stairs.get_data().values, cosines[:, column])
        np.testing.assert_allclose(stairs.get_data().edges, scores.edges)
        shades = [patch for patch in axes.patches if not hasattr(patch, "get_data")]
        assert sorted(round(patch.get_x(), 3) for patch in shades) == [0.0, 0.15, 0.35]
        assert axes.texts[0].get_text() == name
    assert first.get_ylim() == second.get_ylim()  # lanes can be compared
    assert {axes.get_xlim() for axes in (mel, events, first, second)} == {(0, 0.4)}
    assert second.get_xlabel() == "time (seconds)"


def test_a_clip_without_annotation_has_no_bars_and_names_must_fit(tmp_path, drawn):
    scores = FrameScores(np.zeros((2, 1)), np.array([0, 0.1, 0.2]))
    plot_codeword_frames(clip(1, 2, name="a/mine.wav"), CodebookProcessor(), scores, ["only"], tmp_path / "f.png")
    mel, _lane = visible(drawn[0])
    assert mel.get_title(loc="left") == "mine.wav"
    with pytest.raises(ValueError, match=r"`names` has 2 labels for 1 columns of scores\. Give one for each"):
        plot_codeword_frames(clip(1, 2), CodebookProcessor(), scores, ["a", "b"], tmp_path / "f.png")


def test_maps_stand_side_by_side_with_the_borders_of_events(tmp_path, drawn):
    edges = np.array([0, 0.1, 0.2, 0.3, 0.4])
    query_key, value_value = np.full((4, 4), 0.25), np.eye(4) * 0.4 + 0.15
    maps = BlockMaps(query_key, value_value, edges, 1.0, 2.345)
    plain = BlockMaps(query_key, value_value, edges, None, None)
    clips = [(clip(1, 2, 3, 4, captions=("a dog",), events=EVENTS), maps), (clip(1, 2, 3, 4, name="b.wav"), plain)]
    plot_block_maps(clips, tmp_path / "maps.png", note="untrained")
    axes = visible(drawn[0])
    assert len(axes) == 6  # two with events above, two without
    keys, values = axes[1], axes[3]
    np.testing.assert_allclose(keys.collections[0].get_array(), 1)
    np.testing.assert_allclose(values.collections[0].get_array(), value_value * 4)
    vertical = sorted({round(line.get_xdata()[0], 3) for line in values.lines if len(set(line.get_xdata())) == 1})
    assert vertical == [0.1, 0.15, 0.3, 0.35]  # not the borders of the clip itself
    assert axes[0].texts[0].get_text() == "queries and keys   ·   inside / across events 1.00"
    assert axes[2].texts[0].get_text() == "values and values   ·   inside / across events 2.35"
    assert axes[4].texts[0].get_text() == "queries and keys"
    assert axes[0].get_title(loc="left") == "“a dog”"
    assert axes[4].get_title(loc="left") == "b.wav"
    assert drawn[0].get_supxlabel() == "untrained"


def test_without_matplotlib_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingResourceError, match=r"pip install 'hf-audiolang\[viz\]'"):
        plot_usage(usage_of([1], [1]), tmp_path / "usage.png")
