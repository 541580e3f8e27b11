# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the card of a converted Zipformer says about its source and its licence."""

from .card import CardFacts

SOURCE = "https://github.com/k2-fsa/icefall"
FACTS = CardFacts(
    source=SOURCE,
    papers=(
        (
            "Yao et al., Zipformer: A faster and better encoder for automatic speech recognition, ICLR 2024",
            "https://arxiv.org/abs/2310.11230",
        ),
        (
            "Revisiting Audio-language Pretraining for Learning General-purpose Audio Representation, 2025",
            "https://arxiv.org/abs/2511.16757",
        ),
    ),
    license_name="see-source",
    license_link=SOURCE,
    licence=f"""The code of [icefall]({SOURCE}) and of Auden is under Apache-2.0. For the weights look at
the page that you downloaded them from, and at what the data allow that they were trained on, before you publish this
folder.""",
    remarks="""The encoder pads each clip as if it were alone (`exact_padding`), so that its output does not depend on
the batch; the authors' code does not, and differs near the ends of the shorter clips of a batch. Set it to False for
their numbers. Sizes that act in training alone (dropout, channels that are never dropped, chunk sizes) are not in the
file: the configuration has defaults for them.""",
)


__all__ = ["FACTS", "SOURCE"]
