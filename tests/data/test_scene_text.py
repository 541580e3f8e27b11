import re
from itertools import pairwise

import numpy as np
import pytest
from caption_checker import PHRASES, TABLE, grammar_faults, mentions, untruths

from hf_audiolang.data.scene_negatives import HARD_NEGATIVES, change_count, swap_attribute, swap_class, swap_order
from hf_audiolang.data.scene_text import parse_caption, templates_for
from hf_audiolang.data.scene_words import with_article, zero_shot_text
from hf_audiolang.data.sound_scenes import CLASSES, SoundScenes

OPTIONS = (
    {"duration": (1.0, 30.0)},
    {"duration": (2.0, 8.0), "n_events": (1, 3)},
    {"duration": 30.0, "n_events": (4, 5)},
)


@pytest.fixture(scope="module")
def rows():
    """Rows of all modes, as they are in training."""
    return [SoundScenes("train", 150, **options).structure(i) for options in OPTIONS for i in range(150)]


@pytest.fixture(scope="module")
def reworded_rows():
    dataset = SoundScenes("validation", 200, duration=(2.0, 30.0), paraphrase="held_out")
    return [dataset.structure(index) for index in range(200)]


def test_every_caption_is_true(rows, reworded_rows):
    assert {row["mode"] for row in rows} == {"single", "sequence", "overlap", "repeat", "mixed"}
    for row in rows + reworded_rows:
        for caption in row["captions"]:
            assert untruths(caption, row) == [], (caption, row["events"])


def test_the_checker_sees_what_is_wrong(rows):
    """Control: read against the annotation of another row, captions are found untrue."""
    wrong = [untruths(caption, other) for row, other in pairwise(rows) for caption in row["captions"]]
    assert np.mean([bool(found) for found in wrong]) > 0.97
    row = {"duration": 4.0, "events": [
        {"label": "siren", "onset": 0.0, "offset": 1.0, "level_db": -26, "loudness": "neutral", "pitch": None,
         "speed": None, "count": None},
        {"label": "knocking", "onset": 2.0, "offset": 3.0, "level_db": -36, "loudness": "soft", "pitch": None,
         "speed": None, "count": 3},
    ]}  # fmt: skip
    assert untruths("a siren then three quiet knocks", row) == []
    assert untruths("three knocks then a siren", row) == ["order"]
    assert untruths("two knocks after a siren", row) == ["number"]
    assert untruths("loud knocking after a siren", row) == ["loud"]
    assert untruths("knocking while a siren wails", row) == ["overlap"]
    assert untruths("a siren", row) == ["classes"]


def test_captions_are_good_english(rows, reworded_rows):
    for row in rows + reworded_rows:
        for caption in row["captions"]:
            assert grammar_faults(caption) == [], caption
    assert grammar_faults("a electronic beep") == ["a/an"]
    assert grammar_faults("a siren wails can be heard") == ["verb phrase for noun phrase"]


def test_captions_of_a_clip_differ(rows):
    numbers = [len(set(row["captions"])) for row in rows]
    assert min(numbers) >= 3
    assert np.mean([number == 5 for number in numbers]) >= 0.95


def test_attributes_are_said_at_times_and_left_out_at_times(rows):
    said = [
        any(word in caption for word in ("loud", "noisy"))
        for row in rows
        if row["mode"] == "single" and row["events"][0]["loudness"] == "loud"
        for caption in row["captions"]
    ]
    assert 0.25 < np.mean(said) < 0.6


def test_first_caption_holds_the_grounding_phrases(rows):
    for row in rows:
        events = {}
        for event in row["events"]:
            events.setdefault(event["label"], []).append([event["onset"], event["offset"]])
        assert len(row["phrases"]) == len(events)
        for phrase in row["phrases"]:
            assert phrase["phrase"] in row["captions"][0]
            (found,) = mentions(phrase["phrase"])
            assert PHRASES[found[3]][2] != "verb"
            assert phrase["segments"] == events[found[0]]


def test_held_out_wordings_stay_out_of_training(rows, reworded_rows):
    def held_out_words(caption):
        return [words for *_, words in mentions(caption) if PHRASES[words][1]]

    captions = [caption for row in rows for caption in row["captions"]]
    assert not any(held_out_words(caption) for caption in captions)
    assert not any(caption.startswith("before ") or ", last " in caption for caption in captions)
    reworded = [(caption, row["mode"] == "repeat") for row in reworded_rows for caption in row["captions"]]
    for caption, is_repeat in reworded:
        for _, modifiers, _, words in mentions(caption):
            # "one bark", or "a dog" for one bark and then two: the held-out noun "dog barks" is a plural.
            assert PHRASES[words][1] or "one" in modifiers or is_repeat, caption
    sequences = [caption for row in reworded_rows if row["mode"] == "sequence" for caption in row["captions"]]
    assert all(caption.startswith("before ") or ", last " in caption for caption in sequences)


def test_vocabulary_is_small(rows):
    words = {word for row in rows for caption in row["captions"] for word in re.findall(r"[a-z]+", caption)}
    assert 120 < len(words) < 220


def test_parsing_gives_back_every_caption(rows, reworded_rows):
    for row in rows + reworded_rows:
        for text in row["captions"]:
            caption = parse_caption(text)
            assert caption.text == text
            in_text = {label for label, *_ in mentions(text)}
            assert {phrase.label for phrase in caption.phrases} == in_text
            if row["mode"] == "sequence":
                in_time = [event["label"] for event in row["events"]]
                assert [phrase.label for phrase in caption.phrases] == in_time


@pytest.mark.parametrize("text", ["a trumpet", "a siren wails can be heard", "", "a siren before", "an siren"])
def test_parsing_refuses_other_text(text):
    with pytest.raises(ValueError, match="no caption of the synthetic scenes"):
        parse_caption(text)


@pytest.mark.parametrize("name", HARD_NEGATIVES)
def test_hard_negatives_are_false_in_one_fact(rows, name):
    allowed = {
        "swap_order": {"order"},
        "swap_class": {"classes"},
        "swap_attribute": {"loud", "soft", "fast", "slow", "high", "low", "long", "brief"},
        "change_count": {"number"},
    }[name]
    made = 0
    for row in rows[::2]:
        for caption in row["captions"]:
            negative = HARD_NEGATIVES[name](caption)
            if negative is None:
                continue
            made += 1
            wrong = set(untruths(negative, row))
            assert wrong, (caption, negative)
            assert wrong <= allowed, (caption, negative, wrong)
            assert grammar_faults(negative) == [], negative
            assert negative == HARD_NEGATIVES[name](caption)  # depends on the caption alone
    assert made > 60


def test_hard_negatives_of_known_captions():
    assert swap_order("a siren then loud knocking") == "loud knocking then a siren"
    assert swap_order("a dog barks after a siren") == "a siren after a dog barks"
    assert swap_order("a dog barks followed by a siren") == "a siren then a dog barks" or (
        swap_order("a dog barks followed by a siren") == "a siren followed by a dog barks"
    )
    assert swap_order("rain while a siren wails") is None
    assert swap_order("a siren twice with a pause in between") is None
    assert swap_attribute("a loud siren can be heard") in (
        "a quiet siren can be heard",
        "a soft siren can be heard",
        "a faint siren can be heard",
    )
    assert swap_attribute("a siren can be heard") is None
    assert change_count("a siren") is None
    assert re.fullmatch(
        r"(one knock|(two|four|five|six|seven|eight) knocks) then rain", change_count("three knocks then rain")
    )
    swapped = swap_class("three knocks", np.random.default_rng(0))
    assert re.fullmatch(r"three \w+( \w+)?", swapped)
    assert swapped != "three knocks"


def test_no_wording_belongs_to_two_classes():
    words = [name.strip() for line in TABLE.strip().splitlines() for name in re.split(r"[|,]", line.split(": ")[1])]
    words = [name for name in words if name]
    doubled = {name for name in words if words.count(name) > 1}
    assert doubled <= {"claps", "guitar notes", "heartbeat", "drum hits", "laser zaps", "footsteps"}  # noun = counted
    assert len({text for label in CLASSES for text in [zero_shot_text(label)]}) == 32


def test_zero_shot_text_is_the_first_noun_without_article():
    assert zero_shot_text("beep") == "electronic beep"
    assert zero_shot_text("plucked_string") == "plucked string"
    assert zero_shot_text("explosion") == "explosion"
    with pytest.raises(ValueError, match="Unknown class name 'cow'"):
        zero_shot_text("cow")


def test_articles_follow_the_sound():
    assert with_article("engine") == "an engine"
    assert with_article("loud engine") == "a loud engine"


def test_templates_hold_out_two_wordings():
    lists = [
        templates_for(((0,),)),
        templates_for(((0,), (1,))),
        templates_for(((0,), (1,), (2,))),
        templates_for(((0, 1),)),
    ]
    held_out = [template.text for templates in lists for template in templates if template.held_out]
    assert held_out == ["before {1}, {0}", "first {0}, next {1}, last {2}"]
