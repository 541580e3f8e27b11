"""Figures: what is drawn, which scene is chosen, and the hint where matplotlib is missing."""

import json
import sys

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pytest
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableExtractor, TableModel, TableProcessor, unit

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import figures
from hf_audiolang.evaluation.metrics import MissingResourceError


class PictureProcessor(TableProcessor):
    """The fake processor with a feature extractor that can be called for a picture."""

    def __init__(self):
        super().__init__()
        self.feature_extractor = PictureExtractor()


class PictureExtractor(TableExtractor):
    """Gives samples to the model and noise with 13 mel bins to the picture."""

    std, mean, log, mel_scale, f_min, f_max = 2.0, -5.0, "ln", "htk", 20.0, 8000.0

    def __call__(self, waveforms, sampling_rate, return_tensors):
        if return_tensors == "pt":
            return super().__call__(waveforms, sampling_rate, return_tensors)
        return {"input_features": np.random.default_rng(0).standard_normal((1, len(waveforms[0]), 13))}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    saved = []
    original = matplotlib.figure.Figure.savefig

    def savefig(figure, *args, **kwargs):
        saved.append(figure)
        return original(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return saved


def test_the_scene_shows_similarities_and_true_times_of_each_phrase(tmp_path, drawn):
    table = unit(20, 5, seed=0)
    record = Record(
        id="scene",
        audio=np.repeat(np.array([3, 7, 1, 1], dtype=np.float32) / 100, FRAME_SAMPLES),
        sampling_rate=SAMPLING_RATE,
        captions=("first sound 8 then sound 9",),
        phrases=(
            {"phrase": "sound 8", "segments": [[0.0, 0.12]]},
            {"phrase": "sound 9", "segments": [[0.1, 0.2], [0.3, 0.4]]},
        ),
    )
    before = mpl.rcParams["axes.spines.right"]
    path = figures.plot_scene(
        TableModel(table, table), PictureProcessor(), record, tmp_path / "new" / "s.png", note="n"
    )
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert mpl.rcParams["axes.spines.right"] == before  # the user's settings are left alone
    (figure,) = drawn
    mel, first, second = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"][:3]
    for axes, row in ((first, 8), (second, 9)):
        stairs = next(patch for patch in axes.patches if hasattr(patch, "get_data"))
        np.testing.assert_allclose(stairs.get_data().values, table[[3, 7, 1, 1]] @ table[row], atol=1e-6)
        np.testing.assert_allclose(stairs.get_data().edges, [0, 0.1, 0.2, 0.3, 0.4])
        assert axes.texts[0].get_text() == f"sound {row}"
    spans = [p for p in second.patches if not hasattr(p, "get_data")]
    assert sorted(round(span.get_x(), 3) for span in spans) == [0.1, 0.3]
    assert first.get_ylim() == second.get_ylim()  # lanes can be compared
    assert mel.get_xlim() == (0, 0.4)
    assert second.get_xlabel() == "time (seconds)"
    assert mel.get_title(loc="left") == "“first sound 8 then sound 9”"
    assert mel.texts[0].get_text().startswith("n   ·   0.4 s")


def test_a_clip_without_annotation_needs_words_to_look_for(tmp_path, drawn):
    table = unit(20, 5, seed=0)
    record = Record(id="mine.wav", audio=np.full(40, 0.03, dtype=np.float32), sampling_rate=SAMPLING_RATE)
    model, processor = TableModel(table, table), PictureProcessor()
    with pytest.raises(ValueError, match=r"'mine.wav' has no `phrases`\. Pass `phrases`"):
        figures.plot_scene(model, processor, record, tmp_path / "s.png")
    figures.plot_scene(model, processor, record, tmp_path / "s.png", phrases=["sound 4", "sound 5"])
    assert drawn[0].axes[0].get_title(loc="left") == "mine.wav"
    assert len(drawn[0].axes[1].patches) == 1  # no shading


def test_loss_curves_of_the_terms_that_the_log_has(tmp_path, drawn):
    log = tmp_path / "train_log.jsonl"
    lines = [{"step": step, "loss": 9.0 - step, "caption": 1.0, "learning_rate": 0.1} for step in range(1, 5)]
    log.write_text("\n".join(map(json.dumps, [*lines, {"step": 4, "text_to_audio/R@1": 0.5}])) + "\n")
    figures.plot_losses(log, tmp_path / "losses.png")
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == ["total loss", "caption loss"]
    np.testing.assert_array_equal(drawn[0].axes[0].lines[0].get_xydata(), [(s, 9.0 - s) for s in range(1, 5)])
    log.write_text('{"step": 1, "text_to_audio/R@1": 0.5}\n')
    with pytest.raises(ValueError, match="has none of"):
        figures.plot_losses(log, tmp_path / "losses.png")


def test_running_mean_is_centred_and_shorter_at_the_ends():
    np.testing.assert_allclose(figures.running_mean(np.array([1.0, 2, 6, 7]), 3), [1.5, 3, 5, 6.5])
    np.testing.assert_allclose(figures.running_mean(np.array([4.0, 2]), 1), [4, 2])


def test_the_pictured_scene_is_the_first_plain_sequence_of_three():
    def row(part, mode, count):
        return {"part": part, "mode": mode, "events": [0] * count, "phrases": [0] * count}

    rows = [row("order_pairs", "sequence", 3), row("plain", "mixed", 4), row("plain", "sequence", 2)]
    assert figures.picture_scene(rows) == 1  # the one with most sounds, for want of a sequence of three
    assert figures.picture_scene([*rows, row("plain", "sequence", 3), row("plain", "sequence", 3)]) == 3


def test_without_matplotlib_the_message_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}')
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingResourceError, match=r"pip install 'hf-audiolang\[viz\]'"):
        figures.plot_losses(tmp_path / "log.jsonl", tmp_path / "losses.png")
