# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the card of a converted MGA-CLAP says about its source and its licence."""

from .card import CardFacts

SOURCE = "https://github.com/Ming-er/MGA-CLAP"
WAVCAPS = "https://github.com/XinhaoMei/WavCaps"
FACTS = CardFacts(
    source=SOURCE,
    papers=(
        (
            "Li et al., Advancing Multi-grained Alignment for Contrastive Language-Audio Pre-training, ACM MM 2024",
            "https://arxiv.org/abs/2408.07919",
        ),
    ),
    license_name="academic-use-only",
    license_link=WAVCAPS,
    licence=f"""The authors' repository shows a badge of the MIT licence but holds no licence file, and does not say
under which licence the weights stand. They were trained on [WavCaps]({WAVCAPS}), whose captions and sounds may be used
for academic purposes only, with AudioCaps and Clotho, and started from an HTS-AT trained on AudioSet and from BERT:
take them as for academic, non-commercial use, and ask the authors before you publish this folder.""",
    remarks="""The authors publish one file and say neither which of their lists of excluded clips nor which epoch it
is from. Evaluation clips may have been in its training data: its results on sound event detection and grounding are
not certain to be zero-shot ones.""",
)


__all__ = ["FACTS", "SOURCE", "WAVCAPS"]
