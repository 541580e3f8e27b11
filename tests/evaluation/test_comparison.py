"""Runs side by side: rates in percent, gaps, chance, and what makes values incomparable."""

import json

import pytest

from hf_audiolang.evaluation.comparison import compare_reports, comparison_table, read_reports


def write(folder, values, chance=None, **record):
    folder.mkdir(parents=True)
    record = {"task": "retrieval", "data": "scenes test", "num_clips": 300, "num_skipped": 0} | record
    report = values | {"chance": chance or {}, "ceiling": {}, "records": [record]}
    (folder / "metrics.json").write_text(json.dumps(report))
    return str(folder)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_has_a_column_per_run_and_says_what_is_missing(tmp_path):
    one = write(
        tmp_path / "one",
        {"audio_to_text/MedR": 3.0, "text_to_audio/R@1": 0.512, "zero_shot/accuracy": 0.9},
        {"text_to_audio/R@1": 1 / 300, "zero_shot/accuracy": 1 / 32},
    )
    two = write(tmp_path / "two", {"text_to_audio/R@1": 0.25}, {"text_to_audio/R@1": 1 / 300})
    reports = read_reports([one, two])
    lines = comparison_table(reports).splitlines()
    assert [cells(line) for line in (lines[0], *lines[2:])] == [
        ["metric", "one", "two", "chance"],
        ["zero-shot accuracy", "90.0", "-", "3.1"],
        ["text to audio R@1", "51.2", "25.0", "0.3"],
    ]
    assert len({len(line) for line in lines}) == 1  # columns line up
    everything = comparison_table(reports, all_metrics=True).splitlines()
    assert cells(everything[-1]) == ["audio_to_text/MedR", "3.0", "-", "-"]  # a rank, no rate
    values = compare_reports(reports)
    assert list(values) == ["zero_shot/accuracy", "text_to_audio/R@1", "audio_to_text/MedR"]
    assert values["zero_shot/accuracy"] == {
        "values": {one: 0.9, two: None},
        "chance": {one: 1 / 32, two: None},
    }


def test_metrics_outside_of_the_main_table_are_shown_when_there_is_nothing_else(tmp_path):
    reports = read_reports([write(tmp_path / "one", {"mine/mAP": 0.75})])
    assert cells(comparison_table(reports).splitlines()[-1]) == ["mine/mAP", "75.0", "-"]


def test_other_clips_are_pointed_out(tmp_path):
    values, chance = {"text_to_audio/R@1": 0.5}, {"text_to_audio/R@1": 0.01}
    a = write(tmp_path / "a", values, chance, data_options={"n_events": [1, 3], "sampling_rate": 16000})
    same = write(tmp_path / "same", values, chance, data_options={"n_events": [1, 3], "sampling_rate": 48000})
    assert "Not comparable" not in comparison_table(read_reports([a, same]))
    fewer = write(tmp_path / "fewer", values, {"text_to_audio/R@1": 0.1}, num_clips=10, data_options={"n_events": 2})
    table = comparison_table(read_reports([a, same, fewer])).splitlines()
    assert cells(table[2])[-1] == "1.0 / 10.0"
    assert table[-1] == "Not comparable: retrieval, num_clips: 300 (a, same); 10 (fewer)."


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [write(tmp_path / place / "run", {"text_to_audio/R@1": 0.5}) for place in ("x", "y")]
    assert cells(comparison_table(read_reports(runs)).splitlines()[0])[1:3] == runs
    by_file = [f"{runs[0]}/metrics.json", write(tmp_path / "z", {"text_to_audio/R@1": 0.1})]
    assert cells(comparison_table(read_reports(by_file)).splitlines()[0])[1:3] == ["run", "z"]


def test_what_is_no_finished_run_is_refused(tmp_path):
    run = write(tmp_path / "run", {"text_to_audio/R@1": 0.5})
    (tmp_path / "run" / "model").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no metrics\.json\. Did you mean '.*run'"):
        read_reports([tmp_path / "run" / "model"])
    with pytest.raises(FileNotFoundError, match=r"Give the folder of a finished run"):
        read_reports([run, tmp_path / "absent"])
    with pytest.raises(ValueError, match="twice"):
        read_reports([run, run])
    (tmp_path / "run" / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        read_reports([run])
    (tmp_path / "run" / "metrics.json").write_text('{"step": 3}')
    with pytest.raises(ValueError, match="is no report of an evaluation"):
        read_reports([run])
