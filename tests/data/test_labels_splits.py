from collections import Counter

import pytest

from hf_audiolang.data.labels_records import Clip
from hf_audiolang.data.labels_splits import held_out, split_clips


def clips_of(counts, **more):
    """Clips `label/number` of single classes."""
    return [Clip(f"{label}/{n}", (label,), **more) for label, count in counts.items() for n in range(count)]


def of_class(clips, rows):
    return Counter(label for row in rows for label in clips[row].labels)


def test_without_splits_each_class_is_in_each_part():
    clips = clips_of({"dog": 40, "cat": 5, "rain": 3})
    split = split_clips(clips, "sounds")
    assert sorted(row for rows in split.parts.values() for row in rows) == list(range(48))  # all, none twice
    for rows in split.parts.values():
        assert set(of_class(clips, rows)) == {"dog", "cat", "rain"}
    assert of_class(clips, split.parts["train"])["rain"] == 1
    assert [note.split(":")[0] for note in split.notes] == [
        "No test split is given", "No validation split is given",
    ]  # fmt: skip
    assert f"{len(split.parts['test'])} of 48 training clips" in split.notes[0]


def test_about_a_tenth_is_held_out_and_test_and_validation_are_not_the_same_tenth():
    clips = clips_of({"dog": 1000, "cat": 1000})
    test, validation = held_out(clips, "test"), held_out(clips, "validation")
    for rows in (test, validation):
        assert all(70 <= number <= 130 for number in of_class(clips, rows).values())  # 100 +- 3 sigma of 9.5
    assert len(test & validation) < 50  # 20 by chance
    assert held_out(clips, "test", seed=1) != test


def test_more_clips_move_none():
    few, many = clips_of({"dog": 60, "cat": 60}), clips_of({"dog": 200, "rain": 10, "cat": 60})
    before = {few[row].id for row in held_out(few, "test")}
    after = {many[row].id for row in held_out(many, "test")}
    assert len(before) > 4
    assert before == {name for name in after if name in {clip.id for clip in few}}


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_small_classes_keep_a_clip_on_each_side(count):
    clips = clips_of({f"class{k}": count for k in range(50)})
    taken = held_out(clips, "test", share=0.5)  # many classes fall on one side as a whole
    numbers = of_class(clips, taken)
    assert all(1 <= numbers[f"class{k}"] <= count - 1 for k in range(50))


def test_a_class_with_one_clip_trains():
    clips = clips_of({f"class{k}": 1 for k in range(40)})
    assert held_out(clips, "test") == set()
    split = split_clips(clips, "sounds")
    assert set(split.parts) == {"train"}
    assert "no class has two clips" in split.notes[0]


def test_with_several_labels_every_class_trains_and_nearly_every_one_is_tested():
    names = [f"class{k}" for k in range(12)]
    clips = [Clip(str(n), tuple(sorted({names[n % 12], names[(n * 5 + 1) % 12]}))) for n in range(60)]
    clips += [Clip("silent", ()), Clip("lonely", ("only_here", "class0"))]
    taken = held_out(clips, "test")
    left = of_class(clips, [row for row in range(62) if row not in taken])
    assert set(left) == {*names, "only_here"}
    assert set(of_class(clips, taken)) == set(names)
    assert 61 not in taken


def test_given_splits_are_kept_and_only_what_lacks_is_held_out():
    clips = [*clips_of({"dog": 20, "cat": 20}, split="train"), Clip("t", ("dog",), split="test")]
    split = split_clips(clips, "sounds")
    assert split.parts["test"] == [40]
    assert len(split.parts["train"]) + len(split.parts["validation"]) == 40
    assert len(split.notes) == 1
    assert "validation" in split.notes[0]
    clips.append(Clip("v", ("cat",), split="validation"))
    whole = split_clips(clips, "sounds")
    assert whole.parts == {"train": list(range(40)), "validation": [41], "test": [40]}
    assert whole.notes == []


def test_a_fold_is_tested_and_the_others_train():
    clips = [Clip(str(n), ("dog" if n % 2 else "cat",), split="train", fold=1 + n % 3) for n in range(30)]
    split = split_clips(clips, "sounds", fold=2)
    assert split.parts["test"] == list(range(1, 30, 3))
    assert not {1 + row % 3 for row in split.parts["train"] + split.parts["validation"]} & {2}
    assert (split.folds, split.fold) == ((1, 2, 3), 2)
    first = split_clips(clips, "sounds")
    assert first.parts["test"] == list(range(0, 30, 3))
    assert first.notes[0].startswith("Fold 1 of [1, 2, 3] is tested, as no `fold` is given.")


def test_folds_give_way_to_a_given_test_split():
    clips = [Clip("a", ("dog",), "train", 1), Clip("b", ("cat",), "train", 2), Clip("c", ("dog",), "test", 1)]
    assert split_clips(clips, "sounds").parts["test"] == [2]
    assert split_clips(clips, "sounds", fold=2).parts["test"] == [1]


def test_only_test_clips_cannot_train():
    split = split_clips(clips_of({"dog": 3}, split="test"), "sounds")
    assert split.parts == {"test": [0, 1, 2]}
    assert split.notes == ["sounds has no training clips: nothing can be trained on it, only tested."]


@pytest.mark.parametrize(
    ("clips", "fold", "message"),
    [
        (clips_of({"dog": 2}), 1, r"`fold` is 1, but sounds has no folds\. Leave it out, or name the column"),
        (
            [Clip("a", ("dog",), fold=1), Clip("b", ("dog",), fold=2)], 3,
            r"`fold` is 3, but sounds has the folds \[1, 2\]\. Choose one of them",
        ),
        (
            [Clip("a", ("dog",), fold=1), Clip("b", ("dog",), place="row 7")], None,
            r"1 of 2 clips of sounds have no fold, first row 7\. Write",
        ),
        ([Clip("a", ("dog",), fold=4)], None, r"has the folds \[4\]\. Cross-validation needs two"),
        (
            [Clip("a", ("dog",), "train"), Clip("b", ("dog",), place="row 7")], None,
            r"1 of 2 clips of sounds have no split, first row 7\. Write one of \['train', 'validation', 'test'\]",
        ),
        (clips_of({"dog": 2}, split="validation"), None, r"has validation clips alone.*Give a train or a test split"),
    ],
)  # fmt: skip
def test_folds_and_splits_that_do_not_fit_are_refused(clips, fold, message):
    with pytest.raises(ValueError, match=message):
        split_clips(clips, "sounds", fold=fold)
