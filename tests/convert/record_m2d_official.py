# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes m2d_official_outputs.json: what the official runtime computes for the models of `recorded_case`.

    python tests/convert/record_m2d_official.py FOLDER_WITH_portable_m2d.py

Needs examples/portable_m2d.py of https://github.com/nttcslab/m2d (recorded with commit f0c4128) and the packages timm,
einops and nnAudio (recorded with timm 1.0.31, nnAudio 0.3.4, torch 2.14.1). The runtime's model has one size; smaller
ones come from replacing the sizes that it passes to its own ViT class.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from m2d_official import RecordedCase, chirp, recorded_case, sampled, some_log_mel
from transformers import AutoModel, AutoTokenizer, BatchEncoding, BertConfig, BertModel

CASES = ("encoder", "fine_time", "speech", "high_rate", "clap_2024", "tagger", "final_small", "final_real")
SECONDS = (0.5, 1.37)  # of the small models: less than a table, and a table with a short rest
REAL_SECONDS = (3.3, 10.5)
OUTPUT = Path(__file__).with_name("m2d_official_outputs.json")
CAPTION_IDS = [[2, 17, 9, 41, 30, 3], [2, 25, 3, 0, 0, 0]]


class FixedTokens:
    """Stands for the tokenizer: the same two captions whatever is asked."""

    def __call__(self, texts, **kwargs):
        input_ids = torch.tensor(CAPTION_IDS)
        return BatchEncoding({"input_ids": input_ids, "attention_mask": (input_ids > 0).long()})


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    import portable_m2d

    official_vit = portable_m2d.LocalViT
    recorded = {}
    for name in CASES:
        case = recorded_case(name)
        sizes = case.sizes
        numbers = {"embed_dim": sizes.width, "depth": sizes.depth, "num_heads": sizes.heads}
        numbers["mlp_ratio"] = sizes.mlp / sizes.width
        portable_m2d.LocalViT = lambda numbers=numbers, **kwargs: official_vit(**(kwargs | numbers))
        recorded[name] = record(portable_m2d, case, REAL_SECONDS if name == "final_real" else SECONDS)
    rows = [f'"{name}": {json.dumps(values)}' for name, values in recorded.items()]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


@torch.no_grad()
def record(portable_m2d, case: RecordedCase, seconds: tuple[float, ...]) -> dict:
    with tempfile.TemporaryDirectory() as root:
        file = Path(root) / case.folder / "checkpoint-300.pth"
        file.parent.mkdir()
        torch.save({"model": case.state}, file)
        stacked = portable_m2d.PortableM2D(str(file), num_classes=case.num_classes, flat_features=False)
        flat = portable_m2d.PortableM2D(str(file), flat_features=True)
        clips = {second: chirp(second, case.sampling_rate).unsqueeze(0) for second in seconds}
        result = {str(second): outputs(stacked, flat, clip) for second, clip in clips.items()}
        result["tokens_of_log_mel"] = sampled(flat.encode_lms(some_log_mel().T[None, None]), count=16)
        if "TI" in case.folder:
            use_bert(case)
            result["text"] = sampled(flat.encode_clap_text(["", ""]), count=16)
    return result


def outputs(stacked, flat, clip) -> dict[str, list[float]]:
    found = {
        "log_mel": sampled(stacked.to_normalized_feature(clip)),
        "tokens": sampled(flat.encode(clip)),
        "frames": sampled(stacked.encode(clip)),
        "scene": sampled(stacked.get_scene_embeddings(clip)),
    }
    if hasattr(stacked, "head"):
        found["logits"] = sampled(stacked(clip))
    if hasattr(flat.backbone, "audio_proj"):
        found["embedding"] = sampled(torch.nn.functional.normalize(flat.encode_clap_audio(clip), dim=-1))
    return found


def use_bert(case: RecordedCase) -> None:
    """Makes the official text encoder build its BERT from a configuration; its weights come from the file."""
    prefix = "text_encoder.text_encoder."
    bert = {key.removeprefix(prefix): value for key, value in case.state.items() if key.startswith(prefix)}
    width = bert["pooler.dense.weight"].shape[0]
    config = BertConfig(
        vocab_size=len(bert["embeddings.word_embeddings.weight"]),
        max_position_embeddings=len(bert["embeddings.position_embeddings.weight"]),
        type_vocab_size=len(bert["embeddings.token_type_embeddings.weight"]),
        hidden_size=width,
        num_attention_heads=width // 64,
        num_hidden_layers=sum(key.endswith("intermediate.dense.weight") for key in bert),
        intermediate_size=len(bert["encoder.layer.0.intermediate.dense.weight"]),
    )
    AutoTokenizer.from_pretrained = lambda name: FixedTokens()
    AutoModel.from_pretrained = lambda name: BertModel(config).eval()


if __name__ == "__main__":
    main(sys.argv[1])
