# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes caption_scores.json: what pycocoevalcap's Cider, Bleu and Rouge give for awkward captions, and its words.

    python tests/evaluation/record_caption_scores.py

Recorded with pycocoevalcap 1.2 and Java 17. The scored texts are split at blanks already, so that its tokenizer, which
needs Java, has no part in the scores; what it makes of `SENTENCES` is recorded beside them.
"""

import json
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

OUTPUT = Path(__file__).with_name("caption_scores.json")
# caption, references: what makes it awkward
CLIPS = [
    ("a dog barks twice then a bell rings", ["a dog barks twice then a bell rings"]),  # equal to its only reference
    ("a bell rings then a dog barks twice", ["a dog barks twice then a bell rings", "two barks and a bell"]),  # order
    ("the the the the the the", ["the rain falls on the roof", "rain on a roof", "it rains"]),  # counts are clipped
    ("", ["someone claps slowly", "hand clapping can be heard"]),  # empty
    ("rain", ["rain falls", "rain", "the sound of falling rain on the leaves of a tree"]),  # one word, closest length
    ("water flows", ["a stream of water flows over stones", "water"]),  # no n-gram of three
    ("zebra quartz xylophone", ["an engine runs while a horn honks", "a motor"]),  # nothing in common
    ("a car horn honks", ["a car horn", "a car horn honks loudly"]),  # two references equally close in length
    (
        "a man speaks while a machine hums in the background and a phone rings two times and then it stops",
        ["a man speaks", "a phone rings while a man speaks", "a machine hums"],  # much longer than any
    ),
    ("birds sing", ["birds sing in the trees while wind blows and a river runs by", "many birds sing in a wood"]),
    ("a a dog dog barks barks", ["a dog barks", "a dog barks a dog barks", "the dog 's bark"]),  # repeated words
    (
        "someone walks then a door creaks then someone walks",
        ["someone walks then a door creaks then someone walks", "footsteps a door and footsteps", "someone walks"],
    ),  # fits one of three references exactly
    ("wind", ["the wind blows", "wind"]),
    (
        "a siren wails in the far distance",
        ["a siren", "a siren wails"],
    ),  # precision and recall of different references
]
CASES = {
    "all": list(range(14)),
    "two": [1, 10],
    "long captions": [0, 8, 10, 13],  # more words than the references: no brevity penalty
    "short captions": [3, 4, 5, 9, 12],
    "no match": [3, 6],
}
SENTENCES = [
    "A dog barks, then howls.",
    "A dog's bark echoes in an empty hall.",
    "The dogs' owner doesn't speak.",
    "It's raining; the wind blows.",
    "Someone can't stop laughing...",
    "the man\u2019s voice is calm",
    'A "beep" is heard!',
    "'hello' says a woman",
    "Rain falls on a tin roof while thunder rumbles in the distance.",
    "A car horn honks twice , and then an engine starts .",
    "Is someone knocking? Yes: three knocks.",
    "a woman's and a man's voices",
    "I'm sure they've left and we'll hear if you're in, he'd say.",
    "The clock strikes at 10 o'clock.",
    "A 2nd bell rings after the 1st.",
    "Birds chirp, insects buzz, and water trickles.",
    "FOOTSTEPS ON GRAVEL",
    "A man is speaking with a crowd applauding in the background.",
    "Paper is crumpled; a door shuts.",
    "There isn't any music, just a hum.",
    "wind blows heavily",
    "A baby cries and a woman soothes it: 'there, there'.",
    "Someone types on a keyboard, clicks a mouse, and sighs.",
    "An emergency vehicle's siren wails.",
    "Two people couldn't agree.",
    "caf\u00e9 chatter and clinking cups",
    "Water drips slowly, slowly, slowly.",
    "A train passes; its horn sounds three times.",
    "The cat hisses! The dog growls!",
    "Glass shatters as a window breaks",
    "first a whistle and then a drum",
    "a high pitched beep followed by four claps",
    "before a cricket chirps, a loud explosion",
    "A motor idles, revs, and stops.",
    "Kids' laughter fills the room.",
    'The speaker said: "it won\'t rain".',
    "an adult male is speaking, and a horse is neighing",
    "A toilet flushes and the water's running.",
    "a frog croaks, and another answers",
    "Someone's phone vibrates on a table.",
    "Sizzling of food in a pan .",
    "Bees are buzzing; somebody's mowing the lawn.",
    "Who's there? A voice asks.",
    "a gun is fired, then reloaded",
    "The audience claps, cheers and whistles.",
    "She didn't sneeze, she coughed.",
    "A steam engine's whistle, then chugging.",
    "waves crash on the shore",
    "A drill whirs , pauses , and whirs again",
    "Music's playing softly, isn't it?",
]


def main() -> None:
    words = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(SENTENCES)})
    cases = {}
    for name, indices in CASES.items():
        captions = {i: [CLIPS[i][0]] for i in indices}
        references = {i: CLIPS[i][1] for i in indices}
        cider, cider_per_clip = Cider().compute_score(references, captions)
        bleu, bleu_per_clip = Bleu(4).compute_score(references, captions, verbose=0)
        rouge, rouge_per_clip = Rouge().compute_score(references, captions)
        bleu_names = [f"BLEU_{n}" for n in range(1, 5)]
        cases[name] = {
            "captions": [CLIPS[i][0] for i in indices],
            "references": [CLIPS[i][1] for i in indices],
            "corpus": {"CIDEr-D": float(cider), **dict(zip(bleu_names, bleu, strict=True)), "ROUGE_L": float(rouge)},
            "per_clip": {
                "CIDEr-D": cider_per_clip.tolist(),
                **dict(zip(bleu_names, bleu_per_clip, strict=True)),
                "ROUGE_L": rouge_per_clip.tolist(),
            },
        }
    tokens = {text: words[i][0] for i, text in enumerate(SENTENCES)}
    OUTPUT.write_text(json.dumps({"cases": cases, "tokens": tokens}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
