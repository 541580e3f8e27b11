# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""One training step of stage 1 against numbers that the authors' own code gave, with weights made by a formula.

Source of the numbers: facebookresearch/mae efb2a80 with the patch of nttcslab/m2d f0c4128 (`M2D_CLAP_ViT`; for 2025
with that repository's `AudioToSemantic` on the visible tokens), timm 1.0.31, torch 2.14.1, float64, one process. The
same formula gave its weights, renamed to ours; the position tables are its own.
"""

import pytest
import torch
from tiny import tiny_m2d_clap_config

from hf_audiolang import AudioProjectorConfig, M2dClapForPreTraining

RECORDED = {
    "2024": {
        "masked": 2.08065932,
        "contrastive": 1.86458116,
        "all gradients": 1.32937289,
        "gradients": {
            "m2d_clap.audio_model.embeddings.patch_proj.weight": 0.033342697,
            "m2d_clap.audio_model.embeddings.class_token": 0.0136042306,
            "m2d_clap.audio_model.layers.0.attn.q_proj.weight": 0.00746113327,
            "m2d_clap.audio_model.layers.2.mlp.fc1.bias": 0.00471711444,
            "m2d_clap.audio_model.norm.weight": 0.00888521353,
            "m2d_clap.logit_scale.log_scale": 0.00651680343,
            "predictor.mask_token": 0.216710984,
            "predictor.in_proj.weight": 0.0545122156,
            "predictor.layers.1.attn.v_proj.weight": 0.292568833,
            "predictor.out_proj.bias": 0.216213887,
            "m2d_clap.audio_projection.projector.fc1.weight": 0.0179485407,
        },
        "teacher": {
            "teacher_layers.0.attn.q_proj.weight": 3.83796088,
            "teacher_layers.2.mlp.fc2.bias": 0.76616306,
            "teacher_norm.weight": 4.92410009,
        },
    },
    "2025": {
        "masked": 2.10558827,
        "contrastive": 1.39562821,
        "all gradients": 0.936810633,
        "gradients": {
            "m2d_clap.audio_model.embeddings.patch_proj.weight": 0.0250115072,
            "m2d_clap.audio_model.embeddings.class_token": 0.00490885471,
            "m2d_clap.audio_model.layers.0.attn.q_proj.weight": 0.00528889359,
            "m2d_clap.audio_model.layers.2.mlp.fc1.bias": 0.00245214852,
            "m2d_clap.audio_model.norm.weight": 0.00672593961,
            "m2d_clap.logit_scale.log_scale": 0.00103301668,
            "predictor.mask_token": 0.143487004,
            "predictor.in_proj.weight": 0.030995616,
            "predictor.layers.1.attn.v_proj.weight": 0.173194149,
            "predictor.out_proj.bias": 0.157233253,
            "m2d_clap.audio_projection.projector.semantic_token": 0.0086443041,
            "m2d_clap.audio_projection.projector.layers.0.attn.k_proj.weight": 0.00682159249,
            "m2d_clap.text_projection.weight": 0.0145247663,
        },
        "teacher": {
            "teacher_layers.0.attn.q_proj.weight": 3.73380912,
            "teacher_layers.2.mlp.fc2.bias": 0.771195283,
            "teacher_norm.weight": 4.67424187,
        },
    },
}


def series(count: int, rank: int) -> torch.Tensor:
    """Numbers in -0.5..0.5 that look random and are the same everywhere: only integers are multiplied."""
    index = torch.arange(count)
    return ((index * 7919 + rank * 104729) ** 2 % 10007).double() / 10007 - 0.5


def make_model(kind: str) -> M2dClapForPreTraining:
    projector = {"projector_type": {"2024": "mlp", "2025": "transformer"}[kind], "hidden_size": 24}
    config = tiny_m2d_clap_config(
        audio_config={"intermediate_size": 48},
        projector_config=AudioProjectorConfig(**projector, intermediate_size=24),
        text_config=None,
        text_embedding_size={"2024": 24, "2025": 10}[kind],
        text_projector={"2024": "none", "2025": "linear"}[kind],
        predictor_hidden_size=16,
        predictor_intermediate_size=32,
    )
    model = M2dClapForPreTraining(config).double().train()
    with torch.no_grad():
        for rank, (name, weight) in enumerate(sorted(model.named_parameters())):
            start = 1.0 if name.endswith("norm.weight") else 1.5 if name.endswith("log_scale") else 0.0
            weight.copy_(start + 0.6 * series(weight.numel(), rank).view(weight.shape))
    return model


def make_batch(kind: str) -> dict[str, torch.Tensor]:
    """Four clips of 7 x 5 patches, of which 10 stay visible."""
    order = series(4 * 35, 1002).view(4, 35).argsort(1)  # the first ten of each row are visible
    width = {"2024": 24, "2025": 10}[kind]
    return {
        "input_features": 4 * series(4 * 112 * 80, 1000).view(4, 112, 80),
        "text_embeddings": 4 * series(4 * width, 1001).view(4, width),
        "masked_positions": order.argsort(1) >= 10,
    }


@pytest.mark.parametrize("kind", RECORDED)
def test_step_equals_that_of_the_published_code(kind):
    model, recorded = make_model(kind), RECORDED[kind]
    output = model(**make_batch(kind))
    output.loss.backward()
    for term in ("masked", "contrastive"):
        assert output.loss_terms[term].item() == pytest.approx(recorded[term], rel=1e-6)  # computed in float32
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, norm in recorded["gradients"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-5), name
    whole = torch.cat([grad.flatten() for grad in gradients.values()]).norm()
    assert whole.item() == pytest.approx(recorded["all gradients"], rel=1e-6)
    model.update_teacher(0.9)
    for name, norm in recorded["teacher"].items():
        assert model.state_dict()[name].norm().item() == pytest.approx(norm, rel=1e-8), name


@pytest.mark.parametrize("kind", RECORDED)
def test_another_mask_gives_other_numbers(kind):
    """Control: one token more or less, or another one, is seen at once."""
    model, recorded, batch = make_model(kind), RECORDED[kind], make_batch(kind)
    batch["masked_positions"][0] = batch["masked_positions"][0].roll(1)
    terms = model(**batch).loss_terms
    for term in ("masked", "contrastive"):
        assert abs(terms[term].item() - recorded[term]) > 1e-4
