"""An independent reader of scene captions: its own word table and no template of the package."""

import re

# label: nouns, verb phrases, singular and plural of what is counted
TABLE = """
beep: electronic beep, steady tone, pure tone | a device beeps, a machine emits a tone |
rising_sweep: rising tone, upward sweep, tone going up in pitch | a tone rises, a pitch sweeps upward |
falling_sweep: falling tone, downward sweep, tone going down in pitch | a tone falls, a pitch sweeps downward |
siren: siren, wailing siren, emergency siren | a siren wails, a siren blares |
buzz: buzzing sound, electric buzz, buzzer | something buzzes, an electric device buzzes |
engine: engine, running motor, idling engine | an engine runs, a motor rumbles |
clapping: hand clapping, claps, clapping hands | someone claps, a person claps their hands | clap, claps
ticking: ticking clock, ticking, clock ticks | a clock ticks, a watch ticks | tick, ticks
plucked_string: plucked string, guitar notes, string being plucked | a string is plucked, \
someone plucks a guitar | guitar note, guitar notes
bell: bell, bell ringing, chiming bell | a bell rings, a bell chimes |
knocking: knocking, knocks on a door, door knocking | someone knocks on a door, a person knocks | knock, knocks
water: flowing water, bubbling stream, stream of water | water flows, a stream bubbles |
wind: wind, blowing wind, gusts of wind | the wind blows, wind gusts |
applause: applause, applauding crowd, crowd clapping | a crowd applauds, an audience applauds |
heartbeat: heartbeat, beating heart, heart beats | a heart beats, a heart thumps | heartbeat, heartbeats
whistle: whistle, whistling, whistled note | someone whistles, a person whistles |
drum: drum, drum hits, drumming | a drum is played, someone beats a drum | drum hit, drum hits
rain: rain, falling rain, raindrops | rain falls, it rains |
bird: bird, birds chirping, bird song | a bird chirps, a bird sings |
dog_bark: dog, barking dog, dog barks | a dog barks, a dog is barking | bark, barks
telephone: telephone, ringing telephone, phone ring | a telephone rings, a phone rings |
thunder: thunder, thunderclap, rolling thunder | thunder rumbles, thunder rolls |
footsteps: footsteps, steps, someone walking | someone walks, a person walks | footstep, footsteps
laser: laser, laser zaps, toy laser | a laser fires, a laser zaps | laser zap, laser zaps
humming: humming voice, voice, sung note | a person hums, a voice hums |
fire: crackling fire, fire, crackling | a fire crackles, wood crackles in a fire |
car_horn: car horn, honk, honking horn | a car honks, a horn honks |
cricket: cricket, chirping crickets, insect | a cricket chirps, an insect chirps |
typing: typing, keyboard clicks, keyboard | someone types, a person types on a keyboard |
hiss: hissing steam, hiss, escaping steam | steam escapes, something hisses |
explosion: explosion, blast, bang | something explodes, a bomb goes off |
glass: breaking glass, shattering glass, glass breaking | glass breaks, a window shatters |
"""
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
LOUD, SOFT = {"loud", "noisy", "loudly"}, {"quiet", "soft", "faint", "quietly"}
MODIFIERS = {*LOUD, *SOFT, "rapid", "slow", "rapidly", "slowly", "long", "brief", "high", "low", "pitched", *NUMBERS}
JOINTS = {
    "a", "an", "the", "sound", "of", "can", "be", "heard", "then", "followed", "by", "after", "first", "and",
    "before", "finally", "next", "last", "while", "with", "in", "background", "at", "same", "time", "twice", "pause",
    "between", "again",
}  # fmt: skip

PHRASES: dict[str, tuple[str, bool, str]] = {}  # words -> (label, is held out, kind)
for line in TABLE.strip().splitlines():
    label, rest = line.split(": ")
    nouns, verbs, counted = (part.strip() for part in rest.split("|"))
    for part, kind in ((counted, "counted"), (nouns, "noun"), (verbs, "verb")):
        names = [name for name in part.split(", ") if name]
        for k, name in enumerate(names):
            PHRASES[name] = (label, kind != "counted" and k == len(names) - 1, kind)
_READER = re.compile(r"\b(" + "|".join(sorted(map(re.escape, PHRASES), key=len, reverse=True)) + r")\b")


def mentions(caption: str) -> list[tuple[str, set[str], int, str]]:
    """(label, modifiers, position, words) of every event named, from left to right."""
    caption = re.sub(r", then [a-z ]+ again$", "", caption)
    found = [(match.start(), match.end(), match[1]) for match in _READER.finditer(caption)]
    result = []
    for k, (start, end, words) in enumerate(found):
        left = found[k - 1][1] if k else 0
        right = found[k + 1][0] if k + 1 < len(found) else len(caption)
        before = re.findall(r"[a-z]+", caption[left:start])
        after = re.findall(r"[a-z]+", caption[end:right])
        modifiers = {word for word in after[:1] if word.endswith("ly") and word != "finally"}
        while before and before[-1] in MODIFIERS and not before[-1].endswith("ly"):
            modifiers.add(before.pop())
        result.append((PHRASES[words][0], modifiers, start, words))
    return result


def untruths(caption: str, row: dict) -> list[str]:
    """Everything that a caption says and the annotation denies."""
    wrong = []
    named = mentions(caption)
    events = row["events"]
    is_repeat = len(events) == 2 and events[0]["label"] == events[1]["label"]
    if sorted({label for label, *_ in named}) != sorted({event["label"] for event in events}):
        wrong.append("classes")
    if is_repeat != (caption.endswith((" again", " twice")) or " twice with a pause" in caption):
        wrong.append("repetition")
    for label, modifiers, _, words in named:
        for event in events:
            if event["label"] == label:
                wrong += wrong_attributes(modifiers, words, event, row["duration"])
    if not wrong and not is_repeat:
        by_label = {event["label"]: event for event in events}
        wrong += wrong_times(caption, [by_label[label] for label, *_ in named], [m[2] for m in named])
    return wrong


def wrong_attributes(modifiers: set[str], words: str, event: dict, duration: float) -> list[str]:
    share = (event["offset"] - event["onset"]) / duration
    number = next((NUMBERS.index(word) + 1 for word in modifiers if word in NUMBERS), None)
    is_plural_noun = words.endswith("s") and PHRASES[words][2] != "verb"
    claims = {
        "loud": (modifiers & LOUD, event["loudness"] == "loud" and event["level_db"] > -19),
        "soft": (modifiers & SOFT, event["loudness"] == "soft" and event["level_db"] < -33),
        "fast": (modifiers & {"rapid", "rapidly"}, event["speed"] == "fast"),
        "slow": (modifiers & {"slow", "slowly"}, event["speed"] == "slow"),
        "high": ("high" in modifiers, event["pitch"] == "high"),
        "low": ("low" in modifiers, event["pitch"] == "low"),
        "long": ("long" in modifiers, share > 0.6),
        "brief": ("brief" in modifiers, share < 0.15),
        "number": (number is not None, event["count"] == number),
        "plural": (number is None and event["count"] == 1 and is_plural_noun, False),
    }
    return [name for name, (is_said, is_true) in claims.items() if is_said and not is_true]


def wrong_times(caption: str, events: list[dict], positions: list[int]) -> list[str]:
    """Order and overlap between neighbours, read from the joint between them."""
    if len(events) == 1:
        return []
    wrong = []
    for k in range(len(events) - 1):
        first, second = events[k], events[k + 1]
        joint = caption[positions[k] : positions[k + 1]]
        follows = first["offset"] <= second["onset"]
        precedes = second["offset"] <= first["onset"]
        overlaps = not follows and not precedes
        tail = caption[positions[k + 1] :]
        says_overlap = " while " in joint or " with " in joint
        is_pair = " and " in joint and " and finally " not in joint
        same_time = is_pair and " at the same time" in tail.split(" then ")[0].split(" and finally ")[0]
        if says_overlap or same_time:
            wrong += [] if overlaps else ["overlap"]
            if " with " in joint and second["level_db"] >= first["level_db"]:
                wrong.append("background")
        elif " after " in joint or caption.startswith("before "):
            wrong += [] if precedes else ["order"]
        else:
            wrong += [] if follows else ["order"]
    return wrong


def grammar_faults(caption: str) -> list[str]:
    faults = []
    if re.search(r"\ba [aeiou]", caption) or re.search(r"\ban [^aeiou]", caption):
        faults.append("a/an")
    if re.search(r"\b(\w+) \1\b", caption) or re.search(r"\b(a|an|the) (a|an|the)\b", caption):
        faults.append("doubled word")
    if re.search(r"\b(walking|rapid|slow|loud|quiet) (rapid|slow|loud|quiet)$", caption):
        faults.append("adjective for adverb")
    verbs = [words for words, (_, _, kind) in PHRASES.items() if kind == "verb"]
    if any(f"{verb} can be heard" in caption or f"sound of {verb}" in caption for verb in verbs):
        faults.append("verb phrase for noun phrase")
    if any(f"{article} {number}" in caption for article in ("a", "an") for number in NUMBERS):
        faults.append("article before number")
    rest = _READER.sub(" ", re.sub(r", then [a-z ]+ again$", "", caption))  # "barks, then barks again"
    faults += [f"unknown word {word}" for word in re.findall(r"[^\s,]+", rest) if word not in JOINTS | MODIFIERS]
    return faults
