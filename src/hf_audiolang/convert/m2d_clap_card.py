# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""README.md of a converted M2D or M2D-CLAP model: its source, its licence, and what was converted."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .report import ConversionReport

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
TEMPLATE = """---
{metadata}
---

# {title}

Official weights converted for transformers by hf_audiolang: {layout}.

They were trained and published by the authors of [nttcslab/m2d]({source}); nothing was trained here.

```python
import hf_audiolang
from transformers import {auto_class}, {auto_processor}

model = {auto_class}.from_pretrained("{title}").eval()
processor = {auto_processor}.from_pretrained("{title}")
```

{papers}

## Licence

The weights stand under the authors' own licence, the
[Software Evaluation License Agreement of Nippon Telegraph and Telephone Corporation]({licence}),
which covers all files of that repository. It grants internal use for testing and evaluation that is not commercial;
it forbids passing the software on to others and changing it. Read it before you use this folder, and do not publish
the folder without the authors' consent.

## Conversion

Source file `{source_file}`, SHA-256 `{sha256}`.

```text
{summary}
```
"""


def write_conversion_card(report: ConversionReport, *, papers: tuple[str, ...], has_tokenizer: bool) -> ModelCard:
    """Writes README.md into the folder of a conversion; returns the card.

    Args:
        report: what was converted.
        papers: keys of `PAPERS` to cite.
        has_tokenizer: whether the folder holds a tokenizer beside the feature extractor.
    """
    licence = f"{SOURCE}/blob/master/LICENSE.pdf"
    title = report.output_dir.name
    metadata = ModelCardData(
        license="other",
        license_name="ntt-software-evaluation-license-agreement",
        license_link=licence,
        library_name="transformers",
        tags=["audio", report.config.model_type, "hf_audiolang"],
        model_name=title,
    )
    is_for_training = report.model_class.endswith("ForPreTraining")
    text = TEMPLATE.format(
        metadata=metadata.to_yaml(),
        title=title,
        layout=report.layout,
        source=SOURCE,
        auto_class="AutoModelForPreTraining" if is_for_training else "AutoModel",
        auto_processor="AutoProcessor" if has_tokenizer else "AutoFeatureExtractor",
        papers="\n".join(f"- [{PAPERS[key][0]}]({PAPERS[key][1]})" for key in papers),
        licence=licence,
        source_file=report.source_file,
        sha256=report.sha256,
        summary="\n".join(report.summary().split("\n")[2:-1]),
    )
    card = ModelCard(text, ignore_metadata_errors=False)
    card.save(Path(report.output_dir) / "README.md")
    return card


__all__ = ["PAPERS", "SOURCE", "write_conversion_card"]
