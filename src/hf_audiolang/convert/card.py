# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""README.md of a converted model: its source, its licence, and what was converted."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .report import ConversionReport

TEMPLATE = """---
{metadata}
---

# {title}

Official weights converted for transformers by hf_audiolang: {layout}.

They were trained and published by the authors of [{source_name}]({source}); nothing was trained here.

```python
import hf_audiolang
from transformers import {auto_class}, {auto_processor}

model = {auto_class}.from_pretrained("{title}").eval()
processor = {auto_processor}.from_pretrained("{title}")
```

{papers}
{remarks}
## Licence

{licence}

## Conversion

Source file `{source_file}`, SHA-256 `{sha256}`.

```text
{summary}
```
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card says about official weights.

    Attributes:
        source: address of the authors' repository on GitHub.
        papers: (reference, address) of each paper.
        license_name: name of the licence, for the metadata.
        license_link: address of its text.
        licence: what it allows and asks for, a paragraph.
        remarks: what else a user should know, a paragraph, or empty.
    """

    source: str
    papers: tuple[tuple[str, str], ...]
    license_name: str
    license_link: str
    licence: str
    remarks: str = ""


def write_conversion_card(report: ConversionReport, facts: CardFacts, *, has_tokenizer: bool) -> ModelCard:
    """Writes README.md into the folder of a conversion; returns the card.

    Args:
        report: what was converted.
        facts: about the official weights.
        has_tokenizer: whether the folder holds a tokenizer beside the feature extractor.
    """
    title = report.output_dir.name
    metadata = ModelCardData(
        license="other",
        license_name=facts.license_name,
        license_link=facts.license_link,
        library_name="transformers",
        tags=["audio", report.config.model_type, "hf_audiolang"],
        model_name=title,
    )
    auto_classes = {
        "ForAudioClassification": "AutoModelForAudioClassification",
        "ForPreTraining": "AutoModelForPreTraining",
        "ForConditionalGeneration": "AutoModelForSpeechSeq2Seq",
    }
    auto_class = next((auto for end, auto in auto_classes.items() if report.model_class.endswith(end)), "AutoModel")
    text = TEMPLATE.format(
        metadata=metadata.to_yaml(),
        title=title,
        layout=report.layout,
        source_name=facts.source.removeprefix("https://github.com/"),
        source=facts.source,
        auto_class=auto_class,
        auto_processor="AutoProcessor" if has_tokenizer else "AutoFeatureExtractor",
        papers="\n".join(f"- [{reference}]({address})" for reference, address in facts.papers),
        remarks=f"\n{facts.remarks}\n" if facts.remarks else "",
        licence=facts.licence,
        source_file=report.source_file,
        sha256=report.sha256,
        summary="\n".join(report.summary().split("\n")[2:-1]),
    )
    card = ModelCard(text, ignore_metadata_errors=False)
    card.save(Path(report.output_dir) / "README.md")
    return card


__all__ = ["CardFacts", "write_conversion_card"]
