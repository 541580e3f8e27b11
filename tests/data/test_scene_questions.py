from collections import Counter, defaultdict

import pytest

from hf_audiolang.data.scene_questions import CONFUSABLE, QUESTION_TYPES
from hf_audiolang.data.sound_scenes import CLASSES, SoundScenes, zero_shot_text

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
NAMES = {zero_shot_text(label): label for label in CLASSES}
PLURALS = {
    "claps": "clapping", "ticks": "ticking", "guitar notes": "plucked_string", "knocks": "knocking",
    "heartbeats": "heartbeat", "drum hits": "drum", "barks": "dog_bark", "footsteps": "footsteps",
    "laser zaps": "laser",
}  # fmt: skip


@pytest.fixture(scope="module", params=[(1, 3), (1, 5)])
def rows(request):
    dataset = SoundScenes("validation", 300, duration=(2.0, 12.0), n_events=request.param)
    return [dataset.structure(index) for index in range(300)]


def named(question):
    """Labels named in a question, in order, longest names first."""
    found = []
    for name in sorted(NAMES, key=len, reverse=True):
        position = question.find(f"the {name}")
        if position >= 0 and question[position + 4 + len(name) :][:1] in (" ", "?", ","):
            found.append((position, NAMES[name]))
    return [label for _, label in sorted(found)]


def right_answer(entry, row):
    """The answer from the annotation, worked out anew."""
    question, events = entry["question"], row["events"]
    by_label = {event["label"]: event for event in events}
    about = [by_label[label] for label in named(question) if label in by_label]
    if entry["type"] == "presence":
        text = question.removeprefix("can ").removesuffix(" be heard?").removesuffix("?")
        text = text.removeprefix("is there ").removeprefix("are there ").removeprefix("an ").removeprefix("a ")
        return "yes" if NAMES[text] in by_label else "no"
    if entry["type"] == "count":
        return NUMBERS[by_label[PLURALS[question.split("how many ")[1].split(" are there")[0]]]["count"]]
    if entry["type"] == "number":
        return NUMBERS[len(by_label)]
    if entry["type"] == "order":
        ordered = sorted(events, key=lambda event: event["onset"])
        if "first" in question:
            return zero_shot_text(ordered[0]["label"])
        return zero_shot_text(ordered[ordered.index(about[0]) + 1]["label"])
    if entry["type"] == "overlap":
        first, second = about
        return "yes" if first["onset"] < second["offset"] and second["onset"] < first["offset"] else "no"
    if entry["type"] == "louder":
        return zero_shot_text(max(about, key=lambda event: event["level_db"])["label"])
    if entry["type"] == "longer":
        return zero_shot_text(max(about, key=lambda event: event["offset"] - event["onset"])["label"])
    if entry["type"] == "half":
        return "the first half" if about[0]["offset"] <= row["duration"] / 2 else "the second half"
    value = about[0][entry["type"]]
    return {"soft": "quiet"}.get(value, value)


def test_every_answer_is_right_and_among_the_options(rows):
    for row in rows:
        for entry in row["qa"]:
            assert entry["answer"] == right_answer(entry, row), (entry, row["events"])
            assert entry["options"].count(entry["answer"]) == 1
            assert len(set(entry["options"])) == len(entry["options"]) in (2, 4)


def test_every_clip_has_three_questions_and_every_type_occurs(rows):
    for row in rows:
        assert len(row["qa"]) >= 3
        assert len({entry["question"] for entry in row["qa"]}) == len(row["qa"])
    assert {entry["type"] for row in rows for entry in row["qa"]} == set(QUESTION_TYPES)


def test_guessing_without_listening_does_not_pay(rows):
    answers, positions, sizes = defaultdict(Counter), defaultdict(Counter), {}
    for row in rows:
        for entry in row["qa"]:
            answers[entry["type"]][entry["answer"]] += 1
            positions[entry["type"], len(entry["options"])][entry["options"].index(entry["answer"])] += 1
            sizes[entry["type"]] = len(entry["options"])
    for name, counter in answers.items():
        share = max(counter.values()) / counter.total()
        limit = 0.55 if sizes[name] == 2 else 1 / sizes[name] + 0.05
        if name == "number" and len(counter) == 3:  # one to three events: three answers
            limit = 1 / 3
        assert share <= limit + 1e-9, (name, counter)
    for name in ("presence", "overlap", "pitch", "speed", "loudness", "half"):
        assert len(answers[name]) == 2
        assert len(set(answers[name].values())) == 1, (name, answers[name])  # exactly balanced
    for (name, num_options), counter in positions.items():
        if name in ("order", "louder", "longer"):
            assert sorted(counter) == list(range(num_options)), (name, counter)
            assert len(set(counter.values())) == 1, (name, counter)


def test_absent_sounds_are_confusable_ones(rows):
    for row in rows:
        for entry in row["qa"]:
            if entry["type"] == "presence" and entry["answer"] == "no":
                text = entry["question"].removesuffix("?").removesuffix(" be heard").split(" ", 1)[1]
                text = text.removeprefix("there ").removeprefix("an ").removeprefix("a ")
                groups = [group for group in CONFUSABLE if NAMES[text] in group]
                assert any(set(group) & set(row["labels"]) for group in groups)


def test_confusable_groups_cover_all_classes():
    assert {label for group in CONFUSABLE for label in group} == set(CLASSES)


def test_questions_do_not_depend_on_the_size_of_the_data_set():
    small, large = (SoundScenes("test", size, duration=4.0) for size in (30, 130))
    assert [small.structure(k)["qa"] for k in range(30)] == [large.structure(k)["qa"] for k in range(30)]
