"""The linear probe: features as the encoder gives them, values against an independent solver, and what it refuses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_fakes import SAMPLING_RATE, TableExtractor, TableProcessor, record, unit, waveform
from tiny import tiny_m2d_clap_config, tiny_slap_config
from torch import nn
from transformers import AutoModel

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import logistic_probe
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.metrics import MissingResourceError

TABLE = 3 * unit(40, 7, seed=0)  # rows of norm 3: a normalised feature would show


class TableEncoder(nn.Module):
    """An audio encoder alone: a clip of constant value 0.03 has row 3 of the table as feature."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float32))
        self.dropout = nn.Dropout(0.5)
        self.config = SimpleNamespace(_name_or_path="table")
        self.batches = []

    def forward(self, input_features, input_features_mask):
        self.batches.append(tuple(input_features.shape))
        mean = (input_features * input_features_mask).sum(1) / input_features_mask.sum(1)  # (B,)
        return SimpleNamespace(pooler_output=self.dropout(self.table[(mean * 100).round().long()]))


class System(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.audio_model = encoder
        self.config = encoder.config

    def get_audio_features(self, **inputs):
        raise AssertionError("the probe asks the encoder, not the shared space")


@pytest.mark.parametrize("batch_seconds", [0.1, 1000.0])
def test_features_are_the_encoders_own_in_the_order_of_the_clips(batch_seconds):
    rows = [5, 31, 2, 17, 8]
    records = [record(row, seconds) for row, seconds in zip(rows, (1, 0.4, 3, 0.2, 2), strict=True)]
    encoder = TableEncoder(TABLE).train()
    options = AudioOptions(batch_seconds=batch_seconds)
    for model, processor in ((encoder, TableExtractor()), (System(encoder), TableProcessor())):
        found = logistic_probe.clip_features(model, processor, records, options)
        np.testing.assert_allclose(found.clip_means(), TABLE[rows], atol=1e-6)
        assert [kept.id for kept in found.records] == [f"clip {row}" for row in rows]
    assert encoder.dropout.training  # as before
    assert encoder.table.grad is None
    assert len(encoder.batches) == (10 if batch_seconds == 0.1 else 2)


def test_the_feature_of_a_long_clip_is_the_mean_over_equal_pieces():
    long = Record(id="long", audio=np.concatenate([waveform(3, 0.8), waveform(9, 0.8), waveform(4, 0.8)]),
                  sampling_rate=SAMPLING_RATE)  # fmt: skip
    encoder, extractor = TableEncoder(TABLE), TableExtractor(max_seconds=1.0)
    found = logistic_probe.clip_features(encoder, extractor, [long, record(6)])
    np.testing.assert_allclose(found.clip_means(), [TABLE[[3, 9, 4]].mean(0), TABLE[6]], atol=1e-6)
    cropped = logistic_probe.clip_features(encoder, extractor, [long], AudioOptions(long_audio="crop"))
    assert np.abs(cropped.clip_means()[0] - found.clip_means()[0]).max() > 0.1  # control


def test_unreadable_clips_are_left_out_and_named():
    broken = Record(id="broken", audio=np.full(50, np.nan, dtype=np.float32), sampling_rate=SAMPLING_RATE)
    found = logistic_probe.clip_features(TableEncoder(TABLE), TableExtractor(), [record(4), broken, record(7)])
    np.testing.assert_allclose(found.clip_means(), TABLE[[4, 7]], atol=1e-6)
    assert [message.split(":")[0] for message in found.skipped] == ["broken"]


@pytest.mark.parametrize(("build", "preset"), [(tiny_slap_config, "slap"), (tiny_m2d_clap_config, "m2d_clap")])
def test_a_system_and_its_encoder_alone_have_the_same_features(build, preset):
    torch.manual_seed(0)
    model = AutoModel.from_config(build()).eval()
    extractor = LogMelFeatureExtractor.from_preset(preset, mean=-7.0, std=9.0)
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal(round(seconds * 16000)).astype(np.float32) / 10 for seconds in (0.7, 1.3, 0.4)]
    records = [Record(id=str(n), audio=clip, sampling_rate=16000) for n, clip in enumerate(clips)]
    found = logistic_probe.clip_features(model, SimpleNamespace(feature_extractor=extractor), records)
    alone = logistic_probe.clip_features(model.audio_model, extractor, records)
    np.testing.assert_array_equal(found.clip_means(), alone.clip_means())
    with torch.no_grad():
        for clip, feature in zip(clips, found.clip_means(), strict=True):
            inputs = extractor([clip], sampling_rate=16000, return_tensors="pt")
            expected = model.audio_model(**inputs).pooler_output[0].numpy()
            np.testing.assert_allclose(feature, expected, atol=1e-5)  # batched with longer clips
    assert found.clip_means().shape[1] == model.config.audio_config.frame_feature_size


def noisy_classes(count, seed, spread=1.0):
    """Five classes around centres of a seven-dimensional space, of very different scales."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 5
    centres = np.random.default_rng(99).standard_normal((5, 7))
    features = centres[classes] + spread * rng.standard_normal((count, 7))
    return features * [1, 100, 1, 0.01, 1, 1, 1] + 5, [f"class {c}" for c in classes]


def solved_by_hand(train_features, train_labels, test_features):
    """Predicted class indices of softmax regression on standardised features, sum of losses plus half the norm."""
    mean, deviation = train_features.mean(0), train_features.std(0)
    train, test = (torch.tensor((part - mean) / deviation) for part in (train_features, test_features))
    targets = torch.tensor([int(label[-1]) for label in train_labels])
    weight, bias = torch.zeros(5, 7, dtype=torch.double), torch.zeros(5, dtype=torch.double)
    optimizer = torch.optim.LBFGS([weight.requires_grad_(), bias.requires_grad_()], max_iter=500)

    def closure():
        optimizer.zero_grad()
        loss = (
            nn.functional.cross_entropy(train @ weight.T + bias, targets, reduction="sum") + weight.square().sum() / 2
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    return (test @ weight.T + bias).argmax(1).numpy()


def test_accuracy_is_that_of_regularised_softmax_regression_on_standardised_features():
    train, test = noisy_classes(60, seed=0), noisy_classes(401, seed=1)
    targets = np.array([int(label[-1]) for label in test[1]])
    is_right = solved_by_hand(*train, test[0]) == targets
    found = logistic_probe.linear_probe(*train, *test)
    assert found["accuracy"] == pytest.approx(is_right.mean(), abs=1 / 401)  # one clip on the border
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([is_right[targets == c].mean() for c in range(5)]), abs=1 / 80
    )
    assert 0.4 < found["accuracy"] < 0.95
    raw = nearest_centre_accuracy(*train, *test)
    assert found["accuracy"] > raw + 0.2  # control: the one large feature drowns the others without standardising


def nearest_centre_accuracy(train_features, train_labels, test_features, test_labels):
    names = sorted(set(train_labels))
    centres = np.stack([train_features[np.array(train_labels) == name].mean(0) for name in names])
    nearest = ((test_features[:, None] - centres) ** 2).sum(-1).argmin(1)
    return np.mean([names[c] == label for c, label in zip(nearest, test_labels, strict=True)])


def test_separated_classes_reach_one_and_shuffled_labels_stay_at_chance():
    train, test = noisy_classes(200, seed=0, spread=0.05), noisy_classes(400, seed=1, spread=0.05)
    assert logistic_probe.linear_probe(*train, *test) == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    rng = np.random.default_rng(2)
    shuffled = [list(rng.permutation(labels)) for labels in (train[1], test[1])]
    chance = logistic_probe.linear_probe(train[0], shuffled[0], test[0], shuffled[1])["accuracy"]
    assert abs(chance - 0.2) < 4 * (0.2 * 0.8 / 400) ** 0.5


def test_evaluation_reports_the_values_with_chance_and_record():
    table = 5 * np.eye(3, 7)[[row % 3 for row in range(40)]] + 0.1 * unit(40, 7, seed=0)
    records = [record(row, 0.2 + row / 50, labels=(f"class {row % 3}",)) for row in range(30)]
    wrong = record(0, labels=("class 1",))  # a clip of class 0 under another name
    result = logistic_probe.evaluate(TableEncoder(table), TableExtractor(), records[:21], [*records[21:], wrong])
    assert result["probe/accuracy"] == pytest.approx(9 / 10)
    assert result["probe/balanced_accuracy"] == pytest.approx((1 + 3 / 4 + 1) / 3)
    assert result.chance == {"probe/accuracy": 1 / 3, "probe/balanced_accuracy": 1 / 3}
    said = {"task": "probe", "num_clips": 10, "num_train_clips": 21, "num_classes": 3, "num_features": 7}
    assert said.items() <= result.record.items()


@pytest.mark.parametrize("labels", [(), ("class 0", "class 1")])
def test_a_clip_needs_exactly_one_label(labels):
    good = [record(row, labels=(f"class {row}",)) for row in range(2)]
    with pytest.raises(ValueError, match=r"'clip 5' must have exactly one label, got \[.*leave the clip out"):
        logistic_probe.evaluate(TableEncoder(TABLE), TableExtractor(), good, [record(5, labels=labels)])


def test_classes_and_features_that_cannot_be_probed_are_refused():
    features = unit(4, 3, seed=0)
    with pytest.raises(ValueError, match=r"has 1 class, got \['a'\]. A probe needs two"):
        logistic_probe.linear_probe(features, ["a"] * 4, features, ["a"] * 4)
    with pytest.raises(
        ValueError, match=r"`test_labels` has 1 classes that .* lacks, got \['c'\]. Add training clips"
    ):
        logistic_probe.linear_probe(features, ["a", "b", "a", "b"], features, ["a", "b", "c", "b"])
    with pytest.raises(ValueError, match=r"`test_features` must be \(N, D'\) with N labels .* got \(4, 3\) and 3"):
        logistic_probe.linear_probe(features, ["a", "b", "a", "b"], features, ["a", "b", "a"])
    for value in (np.nan, np.inf):
        bad = features.copy()
        bad[2, 1] = value
        for side, pair in (("train", (bad, features)), ("test", (features, bad))):
            message = rf"`{side}_features` has 1 of 4 rows that are not finite, the first is row 2. Check the weights"
            with pytest.raises(ValueError, match=message):
                logistic_probe.linear_probe(pair[0], ["a", "b", "a", "b"], pair[1], ["a", "b", "a", "b"])


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(logistic_probe, "find_spec", lambda name: None)
    with pytest.raises(MissingResourceError, match=r"'scikit-learn'.*pip install 'hf-audiolang\[eval\]'"):
        logistic_probe.evaluate(TableEncoder(TABLE), TableExtractor(), [], [])
