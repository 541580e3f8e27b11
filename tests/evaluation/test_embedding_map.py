"""Maps: the silhouette against a plain count, classes from folders, notes on thin data, and the picture."""

import csv
import sys

import numpy as np
import pytest
import torch
from evaluation_fakes import TableModel, TableProcessor, record, unit
from tiny import tiny_m2d_clap_config

from hf_audiolang import LogMelFeatureExtractor, M2dClapModel
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.embedding_map import (
    EmbeddingMap,
    class_records,
    map_records,
    silhouette_samples,
    tsne_points,
)
from hf_audiolang.evaluation.figures_map import plot_map
from hf_audiolang.evaluation.metrics import MissingResourceError


def noise(seconds, seed):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000)).astype(np.float32)


def reference(embeds, labels, metric):
    """(b - a) / max(a, b) clip by clip, in float64."""
    embeds, values = embeds.astype(np.float64), []
    unit_embeds = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    for row, label in enumerate(labels):
        to_class = {}
        for other, name in enumerate(labels):
            if other != row:
                gap = np.linalg.norm(embeds[row] - embeds[other])
                distance = gap if metric == "euclidean" else 1 - unit_embeds[row] @ unit_embeds[other]
                to_class.setdefault(name, []).append(distance)
        if label not in to_class:
            values.append(0.0)
            continue
        own = np.mean(to_class.pop(label))
        nearest = min(np.mean(distances) for distances in to_class.values())
        values.append((nearest - own) / max(own, nearest))
    return np.array(values)


def some_map(labels):
    generator = np.random.default_rng(0)
    points, silhouettes = generator.standard_normal((len(labels), 2)), generator.uniform(-1, 1, len(labels))
    files = [f"{i}.wav" for i in range(len(labels))]
    return EmbeddingMap(files, labels, points, silhouettes, "clap", 5.0)


def test_silhouette_equals_a_plain_count():
    embeds = unit(23, 7, seed=0)
    labels = [f"class {i}" for i in np.random.default_rng(1).integers(0, 4, 22)] + ["alone"]
    np.testing.assert_allclose(
        silhouette_samples(embeds, labels), reference(embeds, labels, metric="cosine"), atol=1e-6
    )
    euclidean = reference(embeds, labels, metric="euclidean")
    assert np.abs(silhouette_samples(embeds, labels) - euclidean).max() > 0.01  # control: the distance matters


def test_silhouette_of_known_cases():
    east, north = [1.0, 0.0], [0.0, 1.0]
    np.testing.assert_allclose(silhouette_samples(np.array([east, east, north, north]), ["a", "a", "b", "b"]), 1)
    # every clip alike: a and b are 0
    np.testing.assert_allclose(silhouette_samples(np.array([east] * 4), ["a", "a", "b", "b"]), 0)
    # swapped partners: a = 1; b = mean(0, 1)
    np.testing.assert_allclose(silhouette_samples(np.array([east, north, east, north]), ["a", "a", "b", "b"]), -0.5)


def test_silhouette_needs_two_classes_and_a_class_of_two():
    with pytest.raises(ValueError, match=r"at least two classes, got \['a'\] in 3 clips"):
        silhouette_samples(unit(3, 4, seed=0), ["a"] * 3)
    with pytest.raises(ValueError, match="3 classes for 3 clips: no class has two"):
        silhouette_samples(unit(3, 4, seed=0), ["a", "b", "c"])


def test_map_of_embeddings_has_the_models_classes():
    table = unit(40, 6, seed=0)
    table[10:20] = table[10] + 0.05 * table[10:20]  # a cluster
    table[20:30] = table[20] + 0.05 * table[20:30]
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    clips = [record(row, labels=("ten",)) for row in range(10, 20)] + [
        record(row, labels=("twenty",)) for row in range(20, 30)
    ]
    broken = Record(id="broken", audio=b"no sound", labels=("ten",))
    found = map_records(TableModel(table, table), TableProcessor(), [*clips[:5], broken, *clips[5:]])
    assert found.files == [f"clip {row}" for row in range(10, 30)]
    assert found.labels == ["ten"] * 10 + ["twenty"] * 10
    np.testing.assert_allclose(found.silhouettes, reference(table[10:30], found.labels, metric="cosine"), atol=1e-5)
    assert found.silhouette > 0.9
    assert found.perplexity == pytest.approx(19 / 3)
    assert found.notes == (
        "The perplexity of t-SNE is 6.33 instead of 30: there are only 20 clips, whose distances in the plane say "
        "little.",
    )
    (message,) = found.failed
    assert message.startswith("broken: ")
    gap = np.linalg.norm(found.points[:10].mean(0) - found.points[10:].mean(0))
    assert gap > 2 * found.points[:10].std(0).max()  # t-SNE keeps the clusters apart


def test_thin_classes_are_noted():
    table = unit(9, 5, seed=0)
    clips = [record(row, labels=(label,)) for row, label in enumerate(["a", "a", "b", "c", "a"], start=1)]
    found = map_records(TableModel(table, table), TableProcessor(), clips)
    assert found.notes[:2] == (
        "Class 'b' has one clip, whose silhouette counts as 0.",
        "Class 'c' has one clip, whose silhouette counts as 0.",
    )
    assert found.silhouettes[2] == found.silhouettes[3] == 0
    with pytest.raises(ValueError, match=r"'clip 1' must have exactly one label, got \['a', 'b'\]"):
        map_records(TableModel(table, table), TableProcessor(), [record(1, labels=("a", "b"))])


def test_audio_features_are_the_encoders_own():
    torch.manual_seed(0)
    model = M2dClapModel(tiny_m2d_clap_config()).eval()
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap")
    clips = [
        Record(
            id=str(i), audio=noise(0.3 + 0.1 * i, i) * (1 + 5 * (i % 2)), sampling_rate=16000, labels=(f"c{i % 2}",)
        )
        for i in range(6)
    ]
    found = map_records(model, extractor, clips, features="audio")
    with torch.no_grad():
        pooled = [
            model.audio_model(**extractor([clip.audio], sampling_rate=16000, return_tensors="pt")).pooler_output[0]
            for clip in clips
        ]
    embeds = torch.nn.functional.normalize(torch.stack(pooled), dim=-1).numpy()
    assert embeds.shape == (6, 120)
    np.testing.assert_allclose(found.silhouettes, silhouette_samples(embeds, found.labels), atol=1e-4)
    clap = map_records(model, extractor, clips)
    assert np.abs(clap.silhouettes - found.silhouettes).max() > 1e-3  # control: other features
    alone = map_records(model.audio_model, extractor, clips, features="audio")
    np.testing.assert_allclose(alone.silhouettes, found.silhouettes, atol=1e-6)
    with pytest.raises(ValueError, match="M2dClapAudioModel, an audio encoder without a shared space"):
        map_records(model.audio_model, extractor, clips)
    with pytest.raises(ValueError, match=r"Unknown `features` 'mel'\. Choose one of \['clap', 'audio'\]"):
        map_records(model, extractor, clips, features="mel")


def test_classes_are_the_folders_on_top(tmp_path):
    files = [tmp_path / name for name in ("dog/a.wav", "dog/old/b.wav", "rain/c.wav", "loose.wav")]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    records, outside = class_records(tmp_path, files)
    assert [(r.id, r.labels) for r in records] == [
        (str(files[0]), ("dog",)), (str(files[1]), ("dog",)), (str(files[2]), ("rain",)),
    ]  # fmt: skip
    assert outside == [f"{files[3]}: it lies in no sub-folder, so its class is not known"]
    with pytest.raises(ValueError, match=r"at least two classes, got \['dog'\].*one sub-folder"):
        class_records(tmp_path, files[:2])
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        class_records(files[0], files)


def test_points_come_back_from_both_files(tmp_path):
    found = some_map(["a", "b, c", "a"])
    found.write_csv(tmp_path / "new" / "points.csv")
    with open(tmp_path / "new" / "points.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == found.labels
    np.testing.assert_allclose([[float(row["x"]), float(row["y"])] for row in rows], found.points)
    values = found.to_json()
    assert values["silhouette"] == pytest.approx(found.silhouettes.mean())
    assert (values["space"], values["metric"], values["perplexity"]) == ("features", "cosine", 5.0)
    assert values["points"][1] == {
        "file": "1.wav", "class": "b, c", "x": found.points[1, 0], "y": found.points[1, 1],
        "silhouette": found.silhouettes[1],
    }  # fmt: skip


def test_the_picture_has_a_point_per_clip_and_the_silhouette_in_its_title(tmp_path, drawn):
    labels = [f"class_{i % 9}" for i in range(40)]
    found = some_map(labels)
    assert plot_map(found, tmp_path / "m.png", note="some model").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (axes,) = drawn[0].axes
    assert len(axes.collections) == 9
    for number, collection in enumerate(axes.collections):
        own = found.points[[label == f"class_{number}" for label in labels]]
        np.testing.assert_array_equal(collection.get_offsets(), own)
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes.collections
    }  # colour and shape
    assert len(looks) == 9
    assert [text.get_text() for text in axes.get_legend().get_texts()][:2] == ["class 0 (5)", "class 1 (5)"]
    assert axes.get_title(loc="left") == f"silhouette {found.silhouettes.mean():.3f}"
    assert "40 clips of 9 classes" in axes.texts[0].get_text()
    assert axes.texts[0].get_text().endswith("some model")


def test_more_classes_than_looks_get_no_legend(tmp_path, drawn):
    for number in (98, 99):
        plot_map(some_map([str(i) for i in range(number)] * 2), tmp_path / "m.png")
    many, too_many = (figure.axes[0] for figure in drawn)
    assert many.get_legend() is not None
    assert too_many.get_legend() is None
    assert "too many classes for a legend" in too_many.texts[0].get_text()


def test_the_plane_is_the_same_every_time():
    embeds = unit(40, 200, seed=0)  # wide, where the start of t-SNE is found with random numbers
    np.testing.assert_array_equal(tsne_points(embeds, 5.0), tsne_points(embeds, 5.0))


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingResourceError, match=r"pip install 'hf-audiolang\[viz\]'"):
        tsne_points(unit(9, 4, seed=0), 3.0)
