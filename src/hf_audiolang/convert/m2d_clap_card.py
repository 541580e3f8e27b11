# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the card of a converted M2D or M2D-CLAP model says about its source and its licence."""

from .card import CardFacts

SOURCE = "https://github.com/nttcslab/m2d"
PAPERS = {
    "M2D": (
        "Niizumi et al., Masked Modeling Duo: Towards a Universal Audio Pre-training Framework, IEEE/ACM TASLP 2024",
        "https://doi.org/10.1109/TASLP.2024.3389636",
    ),
    "M2D-CLAP 2024": (
        "Niizumi et al., M2D-CLAP: Masked Modeling Duo Meets CLAP for Learning General-purpose Audio-Language "
        "Representation, Interspeech 2024",
        "https://arxiv.org/abs/2406.02032",
    ),
    "M2D-CLAP 2025": (
        "Niizumi et al., M2D-CLAP: Exploring General-purpose Audio-Language Representations Beyond CLAP, 2025",
        "https://arxiv.org/abs/2503.22104",
    ),
    "MSM-MAE": (
        "Niizumi et al., Masked Spectrogram Modeling using Masked Autoencoders for Learning General-purpose Audio "
        "Representation, HEAR 2021, PMLR 166",
        "https://proceedings.mlr.press/v166/niizumi22a.html",
    ),
}
LICENCE_FILE = f"{SOURCE}/blob/master/LICENSE.pdf"
LICENCE = f"""The weights stand under the authors' own licence, the
[Software Evaluation License Agreement of Nippon Telegraph and Telephone Corporation]({LICENCE_FILE}),
which covers all files of that repository. It grants internal use for testing and evaluation that is not commercial;
it forbids passing the software on to others and changing it. Read it before you use this folder, and do not publish
the folder without the authors' consent."""


def card_facts(papers: tuple[str, ...]) -> CardFacts:
    """The facts of M2D's weights, with these keys of `PAPERS` to cite."""
    return CardFacts(
        source=SOURCE,
        papers=tuple(PAPERS[key] for key in papers),
        license_name="ntt-software-evaluation-license-agreement",
        license_link=LICENCE_FILE,
        licence=LICENCE,
    )


__all__ = ["LICENCE", "LICENCE_FILE", "PAPERS", "SOURCE", "card_facts"]
