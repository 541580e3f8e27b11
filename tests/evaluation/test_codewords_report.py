"""The report on codewords: which clips and texts it takes, that its files say what the functions say."""

import json
import sys

import numpy as np
import pytest
from codeword_fakes import CodebookModel, CodebookProcessor, clip

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import codewords_report
from hf_audiolang.evaluation.codewords import codeword_frame_scores, codeword_usage
from hf_audiolang.evaluation.codewords_findings import collect_codewords, naming_texts, picture_ranking
from hf_audiolang.evaluation.codewords_report import names_text, summary_rows, write_codewords_report

TABLE = np.zeros((12, 6))
TABLE[1:7] = 9 * np.eye(6)
TABLE[7] = TABLE[1] + TABLE[2]


def event(label, onset, offset):
    return {"label": label, "onset": onset, "offset": offset}


RECORDS = [
    clip(1, 7, name="one.wav", captions=("1 and 2",), labels=("1",)),
    clip(3, 2, 1, name="three.wav", captions=("3 then 2",), labels=("3", "2")),
    clip(2, 2, name="two.wav", captions=("2",), labels=("2",)),
]


@pytest.fixture
def model():
    return CodebookModel(TABLE, np.eye(6)[:5])


def read(folder):
    return json.loads((folder / "codewords.json").read_text(encoding="utf-8"))


def test_the_files_hold_the_numbers_of_the_functions(model, tmp_path):
    findings = collect_codewords(model, CodebookProcessor(), RECORDS, data="toys")
    findings, paths = write_codewords_report(findings, CodebookProcessor(), tmp_path / "new")
    names = ["codewords.json", "codewords.md", "usage.png", "frames.png"]
    assert [path.name for path in paths] == names
    assert all(path.is_file() for path in paths)
    found = read(tmp_path / "new")
    usage = codeword_usage(model, CodebookProcessor(), RECORDS)
    assert (found["model"], found["data"]) == ("somewhere/tiny", "toys")
    assert (found["num_clips"], found["num_captions"], found["codebook"]["num_codewords"]) == (3, 3, 5)
    assert found["dead"] == [3, 4]
    assert found["dead_share"] == 0.4
    assert found["active_per_clip"] == pytest.approx(usage.active_per_clip)
    assert [one["clips"] for one in found["codewords"]] == usage.audio_counts.tolist()
    assert [one["captions"] for one in found["codewords"]] == usage.text_counts.tolist()
    np.testing.assert_allclose([one["clip_weight"] for one in found["codewords"]], usage.audio_weights / 3, rtol=1e-4)
    assert (found["named_by"], found["naming_texts"]) == ("labels", ["1", "2", "3"])
    assert [one["names"][0][0] for one in found["codewords"]][:3] == ["1", "2", "3"]
    assert [pair["clip"] for pair in found["pairs"]] == ["one.wav", "three.wav", "two.wav"]
    assert found["pairs"][2]["overlap"] == pytest.approx(1)
    assert found["pairs"][2]["other_overlaps"] == pytest.approx([0.5, 0.5])
    curves = found["curves"]
    assert curves["clip"] == "one.wav"
    scores = codeword_frame_scores(model, CodebookProcessor(), RECORDS[0], curves["codewords"])
    np.testing.assert_allclose(curves["cosines"], scores.scores.T, atol=1e-4)
    np.testing.assert_allclose(curves["edges"], [0, 0.1, 0.2], atol=1e-6)
    assert found["last_block"] is None
    assert "does not show how alike frames are" in found["left_out"]["similarity_maps"]


def test_the_text_has_the_table_the_warning_and_the_pictures(model, tmp_path, monkeypatch):
    findings = collect_codewords(model, CodebookProcessor(), RECORDS)
    monkeypatch.setattr(codewords_report, "_draw", lambda *arguments: [tmp_path / "usage.png"])
    write_codewords_report(findings, CodebookProcessor(), tmp_path)
    text = (tmp_path / "codewords.md").read_text(encoding="utf-8")
    assert "| dead codewords | 2 (40.0%) |" in text
    assert "- 40% of the 5 codewords (2) are in no support" in text
    assert "wider than the data can fill" in text
    assert "](usage.png)" in text
    assert "](similarity_maps.png)" not in text
    assert "Left out: similarity_maps" in text
    assert "| 1 | 2 1.00, 1 0.00, 3 0.00 | 3 | 3 |" in text or "| 1 | 2 1.00, 3 0.00, 1 0.00 | 3 | 3 |" in text
    assert "## three.wav" in text


def test_without_matplotlib_the_report_says_which_extra_is_missing(model, tmp_path, monkeypatch):
    findings = collect_codewords(model, CodebookProcessor(), RECORDS)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    findings, paths = write_codewords_report(findings, CodebookProcessor(), tmp_path)
    assert [path.name for path in paths] == ["codewords.json", "codewords.md"]
    assert "pip install 'hf-audiolang[viz]'" in read(tmp_path)["left_out"]["pictures"]
    text = (tmp_path / "codewords.md").read_text(encoding="utf-8")
    assert "hf-audiolang[viz]" in text
    assert "usage.png" not in text


def test_curves_are_of_codewords_that_the_clip_has_more_of_than_others_one_per_name(model):
    """Codeword 1 is everywhere; 0 and 2 are what `picture` has more of; 3 and 4 share the name of 0."""
    records = [
        clip(1, 2, 3, name="picture", events=(event("a", 0, 0.1), event("b", 0.1, 0.2), event("c", 0.2, 0.3))),
        *[clip(2, name=f"other {number}") for number in range(4)],
    ]
    model.codebook.weight.data[:] = 0
    model.codebook.weight.data[:, :3] = model.codebook.weight.data.new_tensor(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.99, 0, 0], [0.98, 0, 0]]
    )
    findings = collect_codewords(model, CodebookProcessor(), records, texts=["1", "2", "3"])
    codewords = findings.curves.codewords
    assert findings.curves.record.id == "picture"
    assert set(codewords[:2]) == {0, 2}
    assert codewords[2:] in ((1,), ())
    assert findings.named_by == "given texts"


def test_the_pictured_clip_is_the_first_with_three_sounds_one_after_another():
    def record(*spans):
        return Record(id="", audio=None, events=tuple(event(*span) for span in spans))

    records = [
        record(),
        record(("a", 0, 2), ("b", 1, 3), ("c", 4, 5)),  # overlapping
        record(("a", 0, 1), ("b", 1, 2)),
        record(("a", 0, 1), ("c", 4, 5), ("b", 2, 3)),
        record(("a", 0, 1), ("b", 2, 3), ("c", 4, 5)),
        record(("a", 0, 1), ("a", 2, 3), ("a", 4, 5)),  # one sound three times
    ]
    assert picture_ranking(records)[:3] == [3, 4, 2]
    assert picture_ranking([record(), record()]) == [0, 1]


def test_codewords_are_named_by_labels_else_captions():
    labelled = [
        Record(id="a", audio=None, labels=("dog_bark",), captions=("x",)),
        Record(id="b", audio=None, events=(event("ant", 0, 1), event("dog_bark", 0, 1))),
    ]
    assert naming_texts(labelled) == ("labels", ["ant", "dog bark"])
    assert naming_texts(labelled, lambda label: label[:3]) == ("labels", ["ant", "dog"])
    captions = [Record(id=str(n), audio=None, captions=(f"text {n}", "same")) for n in range(600)]
    kind, texts = naming_texts(captions)
    assert kind == "captions"
    assert len(texts) == 500
    assert texts[:3] == ["text 0", "same", "text 1"]
    with pytest.raises(ValueError, match=r"no labels and no captions .* got 1 clips without\. Give texts"):
        naming_texts([Record(id="a", audio=None)])


def test_captions_as_names_are_cleaned_as_the_model_wants_them(tmp_path):
    model = CodebookModel(TABLE, np.eye(6)[:5], clean_captions=True)
    findings = collect_codewords(model, CodebookProcessor(), [clip(1, captions=("A 1, then 2",))])
    assert findings.named_by == "captions"
    assert findings.names.texts == ("a 1 then 2",)
    assert ("codewords per clip / caption", "1.0 / 2.0") in summary_rows(findings)


def test_names_fit_into_a_line(model):
    texts = ["1 " + "a" * 70, "2 2", "3 3"]
    findings = collect_codewords(model, CodebookProcessor(), RECORDS, texts=texts)
    assert names_text(findings, 0, 40) == "1 " + "a" * 30 + "... 1.00"
    assert len(names_text(findings, 0, 40)) == 40
    assert names_text(findings, 1, 20).startswith("2 2 1.00")
    assert names_text(findings, 1, 20).count(",") <= 1
    assert names_text(findings, 1, 200).count(",") == 2
