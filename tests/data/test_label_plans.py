import re
from pathlib import Path

import pytest
import yaml
from labels_helpers import all_clips, write_sounds, write_table

from hf_audiolang.data.audioset import audioset_classes
from hf_audiolang.data.label_plans import LabelPlan, load_plan, place_and_plan
from hf_audiolang.data.labels import load_labelled
from hf_audiolang.evaluation.zero_shot import class_prompts, resolve_templates

datasets = pytest.importorskip("datasets")
PLANS = sorted((Path(__file__).parents[2] / "configs" / "evaluate").glob("*.yaml"))
# seconds of EVAR's ds_tasks.py, and the clips of M2D-CLAP's Table I
UNIT_SECONDS = {
    "urbansound8k": 4.0, "esc50": 5.0, "fsd50k": 7.6358, "gtzan": 30.0, "nsynth": 4.0, "crema_d": 2.5,
    "speech_commands_v2": 1.0, "surge": 4.0, "voxceleb1": 8.2, "voxforge": 5.8, "audioset": 10.0, "audioset20k": 10.0,
    "vocalsound": 4.18,
}  # fmt: skip
SIZES = {
    "speech_commands_v2": (84843, 9981, 11005, 35), "voxceleb1": (138361, 6904, 8251, 1251),
    "voxforge": (121281, 26684, 28463, 6), "crema_d": (5155, 732, 1551, 6), "gtzan": (443, 197, 290, 10),
    "nsynth": (289205, 12678, 4096, 11), "surge": (148896, 17160, 17336, 88),
    "fsd50k": (40966, None, 10231, 200), "audioset": (2005132, None, 20178, 527),
}  # fmt: skip


def _write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def _numbers_without_source(text):
    """Lines with a number as value and no comment, and not below a key whose comment is of all its lines."""
    lines, covered = [], False
    for line in text.splitlines():
        if not line.startswith(" "):
            covered = ":  #" in line  # a key whose values are below it
        value = line.split("#")[0].partition(":")[2]
        if (
            re.search(r"[\d]", re.sub(r"\"[^\"]*\"|[A-Za-z_/.][\w/.-]*", "", value))
            and "#" not in line
            and not covered
        ):
            lines.append(line)
    return lines


def test_there_is_a_plan_for_each_data_set_of_the_papers():
    names = {path.stem for path in PLANS}
    assert names >= {*UNIT_SECONDS, "ravdess", "vggsound", "desed", "urbansed", "audioset_strong", "mtt", "emomusic"}
    assert names >= {
        "nsynth_pitch",
        "vocalset_singer",
        "vocalset_technique",
        "mtg_instrument",
        "mtg_mood",
        "mtg_genre",
    }


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_loads_and_is_consistent(path):
    text = path.read_text(encoding="utf-8")
    plan = load_plan(path)
    assert text.startswith("# ")
    assert _numbers_without_source(text) == []
    assert set(yaml.safe_load(text)) <= set(LabelPlan.__dataclass_fields__) - {"name"}
    if plan.prompts:
        assert resolve_templates(plan.prompts) == plan.prompts
    assert len(set(plan.captions.values())) == len(plan.captions)  # no two classes have the same words
    for names in (plan.label_names.values(), plan.captions):
        assert not names or plan.num_classes in (None, len(names))
    assert plan.source is None or plan.source.count("/") == 1
    assert plan.subset_copy == (plan.source is not None and "mini" in plan.source)
    assert not plan.folds or plan.fold_column
    assert plan.source is None or (plan.audio_column and plan.label_column and plan.splits)
    assert (plan.classes() is None) or plan.num_classes in (None, len(plan.classes()))


def test_the_check_of_sources_sees_a_bare_number():
    assert _numbers_without_source("folds: 5\nunit_seconds: 4.0  # EVAR\nsizes: {all: 3}") == [
        "folds: 5", "sizes: {all: 3}",
    ]  # fmt: skip
    assert (
        _numbers_without_source("source: mteb/nsynth-mini\nprompts: ['{label} 5']  # x\nlabel_names:  # y\n  0: 7")
        == []
    )


def test_numbers_are_those_of_the_papers():
    plans = {path.stem: load_plan(path) for path in PLANS}
    assert {name: plans[name].unit_seconds for name in UNIT_SECONDS} == UNIT_SECONDS
    parts = ("train", "validation", "test")
    found = {name: (*(plans[name].sizes.get(part) for part in parts), plans[name].num_classes) for name in SIZES}
    assert found == SIZES
    assert {name: plan.folds for name, plan in plans.items() if plan.folds} == {"esc50": 5, "urbansound8k": 10}


def test_prompts_are_those_of_m2d_clap():
    plans = {path.stem: load_plan(path) for path in PLANS}

    def prompts(name, label):
        return class_prompts(label, plans[name].prompts, plans[name].label_text)

    assert prompts("esc50", "crying_baby") == ["crying baby can be heard"]
    assert prompts("crema_d", "FEA") == ["someone talking with a sense of fear can be heard"]
    assert prompts("gtzan", "hiphop") == ["hiphop music can be heard"]
    assert prompts("nsynth", "synth_lead") == ["the musical instrument sound of synth lead can be heard"]
    assert prompts("audioset", "Bow-wow") == ["Bow-wow can be heard"]
    assert prompts("desed", "Vacuum_cleaner") == ["Vacuum cleaner"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fold: 5", r"Unknown key 'fold' in .*Did you mean 'folds'\?"),
        ("name: other", "Unknown key 'name'"),
        ("folds: five", r"`folds` in .* is 'five'\. Write a whole number"),
        ("folds: true", "`folds` in .* is True"),
        ("folds: 0", r"`folds` in .* is 0\. Write a positive number"),
        ("sizes: {test: none}", "`sizes.test` in .* is 'none'"),
        ("sizes: {dev: 3}", r"`sizes.dev` in .* is 'dev'\. Choose one of \['all', 'train', 'validation', 'test'\]"),
        (
            "task: tags",
            r"`task` in .* is 'tags'\. Choose one of \['classification', 'tagging', 'frames', 'regression'\]",
        ),
        ("metric: mAP", r"`metric` in .* is 'mAP'\. Choose one of \['accuracy'\]"),
        ("class_order: sorted", r"`class_order` in .* is 'sorted'\. Choose one of \[None, 'mid_sorted'\]"),
        ("captions: {dog: 3}", r"`captions.dog` in .* is 3\. Write a text"),
        ("prompts: '{label}'", r"`prompts` in .* Write a list of texts"),
        ("splits: {train: train}", r"has no `source`, got None, but a revision, splits or subset_copy"),
        ("table: meta/a.csv", r"has `table` 'meta/a.csv' and `sound_path` None\. Write both"),
        ("- esc50", "holds a list, not `key: value` lines"),
        ("a: [", "is not readable as YAML"),
    ],
)
def test_plans_that_do_not_fit_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_plan(_write(tmp_path, text))


def test_a_plan_that_is_not_there_names_the_others(tmp_path):
    _write(tmp_path, "")
    with pytest.raises(FileNotFoundError, match=r"There is no plan `.*esc\.yaml`.*there are \['mine\.yaml'\] there"):
        load_plan(tmp_path / "esc.yaml")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one data set of 12 clips; gives the questions that it is asked."""
    write_sounds(tmp_path / "files", [f"s{n}.wav" for n in range(12)])
    files = [str(tmp_path / "files" / f"s{n}.wav") for n in range(12)]
    columns = {"audio": files, "classID": [0, 1, 10] * 4, "label": ["no"] * 12, "fold": [1, 1, 1, 2, 2, 2] * 2}
    table = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: asked.append((name, options)) or table)
    return asked


PLAN = """
source: owner/sounds
revision: v2
label_column: classID
splits: {train: everything}
folds: 3
sizes: {all: 12, train: 7}
label_names: {0: rain, 1: dog, 10: cat}
"""


def test_a_plan_chooses_revision_splits_columns_and_names(hub, tmp_path):
    data = load_labelled(plan=load_plan(_write(tmp_path, PLAN)), fold=1)
    assert hub == [("owner/sounds", {"split": "everything", "revision": "v2"})]
    assert data.classes == ["cat", "dog", "rain"]
    assert len(data.test) == 6
    assert sorted(data.test.labels) == [("cat",)] * 2 + [("dog",)] * 2 + [("rain",)] * 2
    assert data.name == "owner/sounds"
    assert data.notes[-2:] == [
        f"owner/sounds has {len(data.train)} train clips; the plan 'mine' expects 7.",
        "owner/sounds has 2 folds; the plan 'mine' expects 3.",
    ]
    with pytest.raises(ValueError, match=r"`fold` is 3, but owner/sounds has the folds \[1, 2\]"):
        load_labelled(plan=load_plan(_write(tmp_path, PLAN)), fold=3)
    missing = load_plan(_write(tmp_path, PLAN.replace("classID", "class")))
    with pytest.raises(ValueError, match=r"`label_column` 'class' is missing: `owner/sounds` split 'train' has"):
        load_labelled(plan=missing)


def test_a_sub_sampled_copy_is_named_and_a_folder_in_its_place_is_not(hub, tmp_path):
    plan = load_plan(_write(tmp_path, PLAN + "subset_copy: true\n"))
    assert any(
        "owner/sounds is a sub-sampled copy: results on it compare" in n for n in load_labelled(plan=plan).notes
    )
    folder = write_sounds(tmp_path / "mine", [f"{label}/{n}.wav" for label in ("dog", "cat") for n in range(3)])
    data = load_labelled(folder, plan=plan)
    assert len(hub) == 1  # the folder is not looked for on the Hub
    assert data.classes == ["cat", "dog"]
    assert not any("sub-sampled" in note for note in data.notes)


def test_a_folder_may_have_the_columns_of_the_plan_or_the_usual_ones(tmp_path):
    plan = load_plan(_write(tmp_path, PLAN))
    folder = write_sounds(tmp_path / "mine", ["a.wav", "b.wav", "c.wav"])
    write_table(folder, "file_name,classID,label", "a.wav,0,x", "b.wav,1,y", "c.wav,10,z")
    assert load_labelled(folder, plan=plan).classes == ["cat", "dog", "rain"]
    write_table(folder, "file_name,label", "a.wav,x", "b.wav,y", "c.wav,x")
    assert load_labelled(folder, plan=plan).classes == ["x", "y"]


def _plan_of(name):
    return load_plan(next(path for path in PLANS if path.stem == name))


def test_esc50_is_read_as_it_was_published(tmp_path):
    names = [f"{fold}-100-A-{n}.wav" for fold in (1, 2) for n in range(2)]
    folder = write_sounds(tmp_path / "ESC-50-master", [f"audio/{name}" for name in names])
    rows = [f"{name},{name[0]},{name[-5]},{('dog', 'sea_waves')[int(name[-5])]},False,100,A" for name in names]
    write_table(folder / "meta", "filename,fold,target,category,esc10,src_file,take", *rows, name="esc50.csv")
    data = load_labelled(folder, plan=_plan_of("esc50"), fold=2)
    assert data.classes == ["dog", "sea_waves"]
    assert {id_: labels for id_, (part, labels) in all_clips(data).items() if part == "test"} == {
        "audio/2-100-A-0.wav": ("dog",),
        "audio/2-100-A-1.wav": ("sea_waves",),
    }
    write_table(folder / "meta", "name,fold,category", "a.wav,1,dog", name="esc50.csv")
    with pytest.raises(ValueError, match=r"without 'filename' of the plan's `sound_path` 'audio/\{filename\}'"):
        load_labelled(folder, plan=_plan_of("esc50"))
    write_table(folder, "file_name,label", *(f"audio/{name},mine" for name in names[:3]), "audio/none.wav,x")
    with pytest.raises(Exception, match=r"none\.wav"):  # a table of one's own comes first
        load_labelled(folder, plan=_plan_of("esc50"), on_bad_example="error")


def test_urbansound8k_is_read_as_it_was_published(tmp_path):
    names = [f"{n}-{label}-0-0.wav" for n in range(2) for label in (3, 8)]
    folder = write_sounds(tmp_path / "UrbanSound8K", [f"audio/fold{int(n[0]) + 1}/{n}" for n in names])
    rows = [f"{n},{n[0]},0.0,0.1,1,{int(n[0]) + 1},{n[2]},x" for n in names]
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    write_table(folder / "metadata", header, *rows, name="UrbanSound8K.csv")
    data = load_labelled(folder, plan=_plan_of("urbansound8k"), fold=1)
    assert data.classes == ["dog_bark", "siren"]
    assert list(data.folds) == [1, 2]
    assert sorted(record.id for record in data.test) == ["audio/fold1/0-3-0-0.wav", "audio/fold1/0-8-0-0.wav"]


def test_words_of_a_plan_for_other_classes_are_noted(tmp_path):
    folder = write_sounds(tmp_path / "emotions", [f"{label}/{n}.wav" for label in ("ANG", "glad") for n in range(3)])
    notes = load_labelled(folder, plan=_plan_of("crema_d")).notes
    assert any("has words for ['DIS', 'FEA', 'HAP', 'NEU', 'SAD'], which are no classes" in note for note in notes)


def test_names_of_a_plan_replace_those_of_the_feature_in_its_order(hub, tmp_path, monkeypatch):
    table = datasets.load_dataset("owner/sounds").cast_column("classID", datasets.ClassLabel(num_classes=11))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: table)
    data = load_labelled(plan=load_plan(_write(tmp_path, PLAN)), fold=1)
    assert data.classes == ["rain", "dog", "2", "3", "4", "5", "6", "7", "8", "9", "cat"]
    assert set(data.test.labels) == {("rain",), ("dog",), ("cat",)}


def test_audioset_labels_become_display_names_in_the_order_of_their_ids(tmp_path):
    plan = load_plan(_write(tmp_path, "task: tagging\nmetric: mAP\nclass_order: mid_sorted"))
    folder = write_sounds(tmp_path / "sounds", ["a.wav", "b.wav", "c.wav"])
    write_table(folder, "file_name,labels,split", "a.wav,/m/09x0r;/m/0jbk,train", "b.wav,Speech,test", "c.wav,,train")
    data = load_labelled(folder, plan=plan)
    by_id = sorted(audioset_classes(), key=lambda row: row.mid)
    assert data.classes == [row.display_name for row in by_id]
    assert all_clips(data)["a.wav"] == ("train", ("Speech", "Animal"))
    assert all_clips(data)["b.wav"] == ("test", ("Speech",))
    write_table(folder, "file_name,labels,split", "a.wav,/m/nowhere,train", "b.wav,Speech,train")
    with pytest.raises(ValueError, match=r"not among the 527 classes of .*: \['/m/nowhere'\]"):
        load_labelled(folder, plan=plan)


def test_a_plan_without_source_or_of_numbers_is_refused(tmp_path):
    plan = load_plan(_write(tmp_path, "num_classes: 3"))
    with pytest.raises(
        ValueError, match=r"`name_or_path` is None, and the plan 'mine' names no Hub id\. Give the folder"
    ):
        load_labelled(plan=plan)
    numbers = load_plan(_write(tmp_path, "task: regression\nmetric: r2\nclass_order: [arousal, valence]"))
    with pytest.raises(ValueError, match="of `task` 'regression', whose targets are no classes"):
        load_labelled(tmp_path, plan=numbers)
    with pytest.raises(ValueError, match="and without a plan names no Hub id"):
        load_labelled()


def test_a_folder_of_sounds_is_the_place_of_a_plan_and_nothing_else(tmp_path):
    path = _write(tmp_path, "num_classes: 3")
    assert place_and_plan(str(path), "sounds") == ("sounds", load_plan(path))
    assert place_and_plan(str(path)) == (None, load_plan(path))
    assert place_and_plan("my_sounds") == ("my_sounds", None)
    with pytest.raises(ValueError, match="`data_folder` is 'sounds', but `data` 'my_sounds' is no plan"):
        place_and_plan("my_sounds", "sounds")
