"""Reports end to end: on the embedded data, on a folder of one's own, and their files and tables."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import TableModel, TableProcessor, record, unit
from tiny import tiny_captionstew_config, tiny_processor
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_audiolang import (
    AudioLangProcessor,
    CaptionStewForConditionalGeneration,
    LogMelFeatureExtractor,
    SlapConfig,
    SlapModel,
)
from hf_audiolang.data.records import RecordView
from hf_audiolang.data.sound_scenes import SoundScenes, materialize, order_pairs, relevance, zero_shot_text
from hf_audiolang.evaluation import detection, grounding, retrieval
from hf_audiolang.evaluation.embed import AudioOptions, embed_audio
from hf_audiolang.evaluation.frames import embed_frames
from hf_audiolang.evaluation.report import (
    collect,
    default_report_dir,
    evaluate_own_data,
    evaluate_sound_scenes,
    markdown_table,
    metrics_of,
    write_report,
)
from hf_audiolang.evaluation.results import TaskResult
from hf_audiolang.model_card import evaluation_metadata

SCENES = {"duration": (1.0, 2.5), "n_events": (1, 3)}
SIZES = {"test_size": 20, "composition_size": 12, "zero_shot_size": 32}
SCRIPT = Path(__file__).parents[2] / "training_scripts" / "evaluate.py"


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    texts = [caption for index in range(40) for caption in SoundScenes("train", 40).structure(index)["captions"]]
    words = sorted({word for text in texts for word in text.replace(",", " ").split()})
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    text = {"model_type": "modernbert", "vocab_size": len(fast), "pad_token_id": 0} | dict.fromkeys(
        ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1
    )
    model = SlapModel(SlapConfig(audio_config={**tower, "initializer_range": 0.3}, text_config={**tower, **text}))
    return model.eval(), AudioLangProcessor(LogMelFeatureExtractor.from_preset("slap", mean=-8.0, std=8.0), fast)


@pytest.fixture(scope="module")
def scene_report(system):
    return evaluate_sound_scenes(*system, scene_options=SCENES, **SIZES)


def test_the_embedded_data_gives_all_values_with_chance_ceiling_and_records(scene_report):
    wanted = ("zero_shot/accuracy", "text_to_audio/R@1", "text_to_audio/R@10", "audio_to_text/R@1", "frame/mAP")
    for name in (*wanted, "composition/text_to_audio/R@10", "order_pairs/accuracy", "text_to_audio/R@1_sem"):
        assert 0 <= scene_report[name] <= 1, name
        assert 0 < scene_report["chance"][name] < 1, name
    assert scene_report["chance"]["zero_shot/accuracy"] == pytest.approx(1 / 32)
    assert scene_report["chance"]["probe/accuracy"] == pytest.approx(1 / 32)
    assert scene_report["probe/accuracy"] > 0.06  # an untrained encoder, two training clips of each class
    assert scene_report["left_out"] == {}
    assert scene_report["chance"]["text_to_audio/R@10"] == pytest.approx(10 / 20)
    assert scene_report["chance"]["composition/text_to_audio/R@1"] == pytest.approx(1 / 12)
    assert scene_report["ceiling"]["text_to_audio/R@1"] > 0.5
    assert scene_report["ceiling"]["composition/text_to_audio/R@10"] == pytest.approx(1)
    for k in (1, 5, 10):
        assert scene_report[f"text_to_audio/R@{k}_sem"] >= scene_report[f"text_to_audio/R@{k}"]
    tasks = {entry["task"]: entry for entry in scene_report["records"]}
    assert {name: entry["num_clips"] for name, entry in tasks.items()} == {
        "zero_shot": 32, "retrieval": 20, "composition/retrieval": 12, "frame": 20,
        "detection": 20, "grounding": 20, "probe": 32,
    }  # fmt: skip
    assert tasks["retrieval"]["data"] == "synthetic-scenes v1 test"
    assert tasks["zero_shot"]["templates"] == ["{label} can be heard"]
    assert tasks["frame"]["seed"] == 0
    assert tasks["composition/retrieval"]["data_options"]["n_events"] == (1, 3)
    assert tasks["retrieval"]["max_seconds"] == 30.0
    assert tasks["probe"]["num_train_clips"] == 64
    assert tasks["probe"]["data"] == "synthetic-scenes v1 zero_shot"
    table = markdown_table(scene_report)
    assert f"| linear probe accuracy | {100 * scene_report['probe/accuracy']:.1f} | 3.1 |  |" in table
    assert "- probe: synthetic-scenes v1 zero_shot, 32 clips, trained on 64 clips of seed 1." in table


def test_the_probe_trains_on_all_classes_alike_and_on_none_of_the_test_clips(system, monkeypatch):
    given = {}

    def remember(model, processor, train, test, *, options=None):
        given.update(train=train, test=test)
        return TaskResult({"probe/accuracy": 0.5}, {}, {"task": "probe", "num_clips": len(test), "num_skipped": 0})

    monkeypatch.setattr("hf_audiolang.evaluation.report.logistic_probe.evaluate", remember)
    model, processor = system
    evaluate_sound_scenes(
        model.audio_model, processor.feature_extractor, zero_shot_size=64, scene_options={**SCENES, "seed": 5}
    )
    assert Counter(Counter(clip.labels[0] for clip in given["train"]).values()) == {4: 32}  # 32 classes, 4 clips each
    assert Counter(Counter(clip.labels[0] for clip in given["test"]).values()) == {2: 32}
    waveforms = [clip.audio.tobytes() for part in given.values() for clip in part]
    assert len(set(waveforms)) == len(waveforms) == 192
    same_seed = RecordView(materialize(SoundScenes("zero_shot", 128, seed=5, **SCENES), num_workers=0))
    assert {clip.audio.tobytes() for clip in same_seed} & set(waveforms)  # control: the next rows would overlap


def test_embeddings_of_real_scenes_do_not_depend_on_batch_mates(system):
    records = RecordView(materialize(SoundScenes("test", 9, **SCENES), num_workers=0))
    together = embed_audio(*system, records)
    alone = embed_audio(*system, records, options=AudioOptions(batch_seconds=0.1))
    np.testing.assert_allclose(together, alone, atol=1e-5)  # float32, sums in another order
    assert np.abs(together[0] - together[1]).max() > 1e-3  # control: clips differ
    in_batches = embed_frames(*system, records).frames
    for frames, record_ in zip(in_batches, records, strict=True):
        np.testing.assert_allclose(frames, embed_frames(*system, [record_]).frames[0], atol=1e-5)


def test_an_oracle_of_labels_in_order_reaches_what_the_data_says(system):
    """Embeddings that code each scene's ordered labels, one random vector per sequence, and its captions alike."""
    scenes = materialize(SoundScenes("test", 60, duration=(2.0, 2.5), n_events=(1, 3)), num_workers=0)
    rows = [scenes.structure(index) for index in range(len(scenes))]
    keys = {}
    codes = [keys.setdefault(tuple(e["label"] for e in row["events"]), len(keys)) for row in rows]
    vectors = unit(len(keys), 64, seed=0)
    audio = vectors[codes]
    records = [record(row, 0.2, captions=(f"caption {row}",)) for row in range(len(rows))]
    model = TableModel(audio, audio)
    true_clips = [[clips] for clips in relevance(scenes, [row["captions"][0] for row in rows])]
    result = retrieval.evaluate(
        model, TableProcessor(), records, true_clips=true_clips, order_pairs=order_pairs(scenes)
    )
    assert result["order_pairs/accuracy"] == 1.0
    # ties count against the model here, so a scene whose code is shared is no hit at 1
    alone = np.mean([codes.count(code) == 1 for code in codes])
    assert result["text_to_audio/R@1"] == pytest.approx(alone)
    assert result["text_to_audio/R@10"] == pytest.approx(1)
    bags = unit(len(keys), 64, seed=1)
    bag_of = {}
    bag_codes = [bag_of.setdefault(tuple(sorted(e["label"] for e in row["events"])), len(bag_of)) for row in rows]
    deaf = TableModel(bags[bag_codes], bags[bag_codes])
    blind = retrieval.evaluate(deaf, TableProcessor(), records, order_pairs=order_pairs(scenes))
    assert blind["order_pairs/accuracy"] == 0.0  # ties: order is not in the embeddings


def test_report_files_hold_the_values_and_the_table_shows_percent(tmp_path):
    task = TaskResult(
        {"text_to_audio/R@1": 0.3012, "text_to_audio/MedR": 4},
        {"text_to_audio/R@1": 1 / 300},
        {"task": "retrieval", "data": "d", "num_clips": 300, "num_skipped": 2},
    )
    report = collect([task, task.labelled("unseen", "composition/")], {"text_to_audio/R@1": 0.98})
    as_json, as_table = write_report(report, tmp_path / "new")
    stored = json.loads(as_json.read_text())
    assert stored == report
    assert metrics_of(stored)["composition/text_to_audio/MedR"] == 4
    table = as_table.read_text()
    assert "| text to audio R@1 | 30.1 | 0.3 | 98.0 |" in table
    assert "| unseen pairs of sounds: text to audio R@1 | 30.1 | 0.3 |  |" in table
    assert "- composition/retrieval: unseen, 300 clips, 2 left out." in table
    assert "Ceiling: an oracle" in table
    report["text_to_audio/R@1"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_report(report, tmp_path)


def test_the_embedded_data_gives_events_and_phrases_by_the_words_of_its_classes(system, scene_report):
    records = RecordView(materialize(SoundScenes("test", 20, **SCENES), num_workers=0))
    found = detection.evaluate(*system, records, SoundScenes("test", 20).labels, label_text=zero_shot_text)
    assert {name: scene_report[name] for name in found} == pytest.approx(dict(found))
    other_words = detection.evaluate(*system, records, SoundScenes("test", 20).labels)
    assert other_words["detection/segment_F1"] != pytest.approx(found["detection/segment_F1"])
    phrases = grounding.evaluate(*system, records)
    assert {name: scene_report[name] for name in phrases} == pytest.approx(dict(phrases))
    tasks = {entry["task"]: entry for entry in scene_report["records"]}
    assert tasks["detection"]["num_events"] == sum(len(record_.events) for record_ in records)
    assert tasks["detection"]["templates"] == ["{label}"]
    assert tasks["grounding"]["num_queries"] == sum(len(record_.phrases) for record_ in records)
    table = markdown_table(scene_report)
    for name, title in (
        ("detection/PSDS1_no_spread", "PSDS1, no spread penalty"),
        ("detection/PSDS2", "PSDS2"),
        ("grounding/PSDSm", "grounding PSDSm"),
    ):
        assert f"| {title} | {100 * scene_report[name]:.1f} | {100 * scene_report['chance'][name]:.1f} |  |" in table
    card = {entry.metric_name: entry for entry in evaluation_metadata(scene_report)}
    assert card["grounding/PSDSm"].task_type == "text-to-audio-grounding"
    assert card["detection/PSDS1_no_spread"].dataset_name == "synthetic-scenes v1 test"


@pytest.mark.parametrize(
    ("name", "dataset_type"),
    [("ashraq/esc50", "ashraq/esc50"), ("My Sounds, v1", "my-sounds-v1"), ("Geräusche", "ger-usche"), ("音", "data")],
)
def test_results_name_their_data_as_the_hub_takes_it(name, dataset_type):
    report = {"zero_shot/accuracy": 0.5, "records": [{"task": "zero_shot", "data": name}]}
    (entry,) = evaluation_metadata(report)
    assert (entry.dataset_name, entry.dataset_type) == (name, dataset_type)


def test_own_clips_are_measured_by_what_they_are_annotated_with():
    audio = np.eye(4, dtype=np.float32)
    model, processor = TableModel(audio, audio), TableProcessor()
    captioned = [record(row, captions=(f"caption {row}",)) for row in range(4)]
    report = evaluate_own_data(model, processor, captioned, data="mine")
    assert report["text_to_audio/R@1"] == 1.0
    assert report["records"][0]["data"] == "mine"
    assert [entry["task"] for entry in report["records"]] == ["retrieval"]
    assert report["left_out"] == {}

    events = ({"label": "sound 1", "onset": 0.0, "offset": 1.0},)
    phrases = ({"phrase": "noise 2", "segments": [[0.0, 1.0]]},)
    strong = [record(1, events=events), record(2, phrases=phrases), record(3, seconds=3.0)]
    report = evaluate_own_data(model, processor, strong, data="mine")
    assert [entry["task"] for entry in report["records"]] == ["detection", "grounding"]
    assert report["detection/event_F1"] == report["grounding/PSDSm"] == 1.0
    assert report["records"][1]["data"] == "mine"
    assert report["left_out"] == {"retrieval": "No record has a caption."}
    both = evaluate_own_data(model, processor, [*captioned, record(1, events=events, captions=("caption 1",))])
    assert [entry["task"] for entry in both["records"]] == ["retrieval", "detection"]
    with pytest.raises(ValueError, match="has no caption"):
        evaluate_own_data(model, processor, [record(1)])
    model.text_model = None
    assert set(evaluate_own_data(model, processor, strong)["left_out"]) == {"detection", "grounding"}


@pytest.fixture(scope="module")
def evaluate_script():
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_beside_a_folder_and_under_the_last_part_of_a_hub_id(evaluate_script, tmp_path, monkeypatch):
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert default_report_dir(str(tmp_path / "run" / "model")) == tmp_path / "run" / "evaluation"
    assert default_report_dir("owner/slap-base") == Path("evaluation/slap-base")
    assert default_report_dir("owner/slap-base", True) == Path("evaluation_captions/slap-base")
    monkeypatch.chdir(tmp_path)
    assert default_report_dir("run/model") == Path("run/evaluation")  # a folder wins


def test_the_script_evaluates_a_folder_and_the_embedded_data(system, evaluate_script, tmp_path, capsys):
    model, processor = system
    model.save_pretrained(tmp_path / "run" / "model")
    processor.save_pretrained(tmp_path / "run" / "model")
    folder = tmp_path / "sounds"
    folder.mkdir()
    lines = ["file_name,caption"]
    for index, row in enumerate(RecordView(materialize(SoundScenes("train", 24, **SCENES), num_workers=0))):
        soundfile.write(folder / f"{index}.wav", row.audio, 16000)
        lines.append(f'{index}.wav,"{row.captions[0]}"')
    (folder / "23.wav").write_bytes(b"RIFF")
    (folder / "metadata.csv").write_text("\n".join(lines))
    model_folder = str(tmp_path / "run" / "model")

    assert evaluate_script.main([model_folder, "--data", str(folder), "--output_dir", str(tmp_path / "own")]) == 0
    stored = json.loads((tmp_path / "own" / "metrics.json").read_text())
    assert stored["records"][0]["num_clips"] == 23
    assert stored["records"][0]["num_skipped"] == 1
    assert "23.wav" in stored["records"][0]["skipped"][0]
    assert "text to audio R@1" in capsys.readouterr().out

    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    assert evaluate_script.main([model_folder, *sizes, "--duration", "1", "2.5", "--figure"]) == 0
    stored = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert "frame/mAP" in stored
    assert (tmp_path / "run" / "evaluation" / "scene.png").stat().st_size > 10_000
    capsys.readouterr()
    assert evaluate_script.main([str(tmp_path / "absent" / "model")]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.fixture
def captioner_folder(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "run" / "captioner"
    CaptionStewForConditionalGeneration(tiny_captionstew_config(text_config=None)).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def test_the_script_scores_captions_into_a_folder_of_their_own(captioner_folder, evaluate_script, tmp_path, capsys):
    of_the_model = tmp_path / "run" / "evaluation" / "metrics.json"
    of_the_model.parent.mkdir()
    of_the_model.write_text("the model's")
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        soundfile.write(sounds / f"{name}.wav", generator.standard_normal(8000) / 10, 16000)
    (sounds / "metadata.csv").write_text("file_name,caption\na.wav,a dog barks\nb.wav,rain falls\nc.wav,a bell\n")
    words = [str(captioner_folder), "--captions", "--device", "cpu"]
    assert evaluate_script.main([*words, "--data", str(sounds)]) == 0
    output_dir = tmp_path / "run" / "evaluation_captions"
    assert of_the_model.read_text() == "the model's"
    stored = json.loads((output_dir / "metrics.json").read_text())
    (about,) = stored["records"]
    assert (about["task"], about["num_clips"], about["data"]) == ("captioning", 3, str(sounds))
    assert 0 <= stored["captioning/CIDEr-D"] <= 10
    assert "captions CIDEr-D" in capsys.readouterr().out
    scenes = ["--test_size", "5", "--duration", "1.5", "2", "--n_events", "1", "2", "--output_dir"]
    assert evaluate_script.main([*words, *scenes, str(tmp_path / "x")]) == 0
    stored = json.loads((tmp_path / "x" / "metrics.json").read_text())
    assert stored["records"][0]["data"].startswith("synthetic-scenes")
    assert (stored["records"][0]["num_clips"], "captioning/CIDEr-D" in stored["ceiling"]) == (5, True)
