# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The words of the synthetic scenes: nouns and verb phrases of every class, and how attributes are said.

Of each class the last noun and the last verb phrase are held out: no training caption contains them.
"""

from dataclasses import dataclass

from .sound_events import CLASSES, event_class


@dataclass(frozen=True)
class Noun:
    """One noun phrase of a class.

    Attributes:
        text: with its article, if it takes one ("a siren", "rain").
        takes: which adjectives make sense besides loudness and pitch: "l" length ("a long siren"), "s" speed ("rapid
            ticking"); "-" means that no adjective may precede it at all ("someone walking").
    """

    text: str
    takes: str = ""

    @property
    def core(self) -> str:
        """The text without its article."""
        return self.text.removeprefix("an ").removeprefix("a ")

    @property
    def has_article(self) -> bool:
        """Whether it takes "a" or "an"."""
        return self.core != self.text


@dataclass(frozen=True)
class ClassWords:
    """Wordings of one class.

    Attributes:
        nouns: two seen in training, then the held-out one.
        verbs: "subject|predicate": one seen in training, then the held-out one.
        counted: singular and plural of what is counted, for countable classes.
        is_plural: whether the first noun is a plural ("are there footsteps?").
    """

    nouns: tuple[Noun, Noun, Noun]
    verbs: tuple[str, str]
    counted: tuple[str, str] | None = None
    is_plural: bool = False


def _words(nouns: str, verbs: str, counted: str | None = None, is_plural: bool = False) -> ClassWords:
    """Parses "a siren +l; a wailing siren +l; ..." and "a siren|wails; ..."."""
    parsed = []
    for entry in nouns.split("; "):
        text, _, takes = entry.partition(" +")
        parsed.append(Noun(text, takes))
    first, second = verbs.split("; ")
    singular_plural = tuple(counted.split("/")) if counted else None
    return ClassWords(tuple(parsed), (first, second), singular_plural, is_plural)


WORDS: dict[str, ClassWords] = {
    "beep": _words(
        "an electronic beep +l; a steady tone +l; a pure tone +l", "a device|beeps; a machine|emits a tone"
    ),
    "rising_sweep": _words(
        "a rising tone +l; an upward sweep +l; a tone going up in pitch +l", "a tone|rises; a pitch|sweeps upward"
    ),
    "falling_sweep": _words(
        "a falling tone +l; a downward sweep +l; a tone going down in pitch +l",
        "a tone|falls; a pitch|sweeps downward",
    ),
    "siren": _words("a siren +l; a wailing siren +l; an emergency siren +l", "a siren|wails; a siren|blares"),
    "buzz": _words(
        "a buzzing sound +l; an electric buzz +l; a buzzer", "something|buzzes; an electric device|buzzes"
    ),
    "engine": _words("an engine; a running motor; an idling engine", "an engine|runs; a motor|rumbles"),
    "clapping": _words(
        "hand clapping +s; claps +s; clapping hands +s", "someone|claps; a person|claps their hands", "clap/claps"
    ),
    "ticking": _words(
        "a ticking clock +s; ticking +s; clock ticks +s", "a clock|ticks; a watch|ticks", "tick/ticks"
    ),
    "plucked_string": _words(
        "a plucked string; guitar notes; a string being plucked",
        "a string|is plucked; someone|plucks a guitar",
        "guitar note/guitar notes",
    ),
    "bell": _words("a bell; a bell ringing; a chiming bell", "a bell|rings; a bell|chimes"),
    "knocking": _words(
        "knocking; knocks on a door; door knocking", "someone|knocks on a door; a person|knocks", "knock/knocks"
    ),
    "water": _words(
        "flowing water; a bubbling stream; a stream of water", "water|flows; a stream|bubbles"
    ),
    "wind": _words("wind; blowing wind; gusts of wind", "the wind|blows; wind|gusts"),
    "applause": _words(
        "applause; an applauding crowd; a crowd clapping", "a crowd|applauds; an audience|applauds"
    ),
    "heartbeat": _words(
        "a heartbeat; a beating heart; heart beats", "a heart|beats; a heart|thumps", "heartbeat/heartbeats"
    ),
    "whistle": _words(
        "a whistle +l; whistling; a whistled note +l", "someone|whistles; a person|whistles"
    ),
    "drum": _words(
        "a drum; drum hits +s; drumming +s", "a drum|is played; someone|beats a drum", "drum hit/drum hits"
    ),
    "rain": _words("rain; falling rain; raindrops", "rain|falls; it|rains"),
    "bird": _words("a bird; birds chirping; bird song", "a bird|chirps; a bird|sings"),
    "dog_bark": _words("a dog; a barking dog; dog barks", "a dog|barks; a dog|is barking", "bark/barks"),
    "telephone": _words(
        "a telephone; a ringing telephone; a phone ring", "a telephone|rings; a phone|rings"
    ),
    "thunder": _words("thunder; a thunderclap; rolling thunder", "thunder|rumbles; thunder|rolls"),
    "footsteps": _words(
        "footsteps; steps; someone walking +-", "someone|walks; a person|walks", "footstep/footsteps", is_plural=True
    ),
    "laser": _words("a laser; laser zaps; a toy laser", "a laser|fires; a laser|zaps", "laser zap/laser zaps"),
    "humming": _words("a humming voice; a voice; a sung note +l", "a person|hums; a voice|hums"),
    "fire": _words(
        "a crackling fire; a fire; crackling", "a fire|crackles; wood|crackles in a fire"
    ),
    "car_horn": _words("a car horn; a honk +l; a honking horn", "a car|honks; a horn|honks"),
    "cricket": _words("a cricket; chirping crickets; an insect", "a cricket|chirps; an insect|chirps"),
    "typing": _words(
        "typing +s; keyboard clicks +s; a keyboard", "someone|types; a person|types on a keyboard"
    ),
    "hiss": _words("hissing steam; a hiss +l; escaping steam", "steam|escapes; something|hisses"),
    "explosion": _words("an explosion +l; a blast +l; a bang +l", "something|explodes; a bomb|goes off"),
    "glass": _words(
        "breaking glass; shattering glass; a glass breaking", "glass|breaks; a window|shatters"
    ),
}  # fmt: skip

NUMERALS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
# value of an attribute -> adjectives, the first of which also stands for it in questions
LENGTH_ADJECTIVES = {"long": ("long",), "brief": ("brief",)}
LOUDNESS_ADJECTIVES = {"loud": ("loud", "noisy"), "soft": ("quiet", "soft", "faint")}
SPEED_ADJECTIVES = {"fast": ("rapid",), "slow": ("slow",)}
PITCH_ADJECTIVES = {"high": ("high pitched",), "low": ("low pitched",)}
LOUDNESS_ADVERBS = {"loud": "loudly", "soft": "quietly"}
SPEED_ADVERBS = {"fast": "rapidly", "slow": "slowly"}


def zero_shot_text(label: str) -> str:
    """What a class is called in prompts: its first noun without the article ("electronic beep").

    Raises:
        ValueError: for an unknown class name.
    """
    event_class(label)
    return WORDS[label].nouns[0].core


def with_article(text: str) -> str:
    """The text behind "a" or "an", as its first letter asks."""
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


if set(WORDS) != set(CLASSES):
    raise RuntimeError("Every sound class needs its words; the two tables differ.")


__all__ = [
    "LENGTH_ADJECTIVES",
    "LOUDNESS_ADJECTIVES",
    "LOUDNESS_ADVERBS",
    "NUMERALS",
    "PITCH_ADJECTIVES",
    "SPEED_ADJECTIVES",
    "SPEED_ADVERBS",
    "WORDS",
    "ClassWords",
    "Noun",
    "with_article",
    "zero_shot_text",
]
