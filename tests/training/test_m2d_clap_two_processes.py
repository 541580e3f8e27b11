# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""M2D-CLAP in two processes on half batches against one process on the whole batch.

The workers run once for the whole file; each test compares one part of what they wrote.
"""

import os
import warnings

import pytest
import torch
import torch.distributed as dist
from tiny import CLIP_FRAMES, tiny_batch, tiny_m2d_clap_config
from torch.nn.parallel import DistributedDataParallel

from hf_audiolang import M2dClapForPreTraining

pytestmark = pytest.mark.multiprocess

WORLD = 2
STEPS = 2
EMBEDDINGS = {"text_config": None, "text_embedding_size": 10}
ALIGNED = {"masked_weight": 0.0, "masking_ratio": 0.3}
VARIANTS = {
    "stage 1": EMBEDDINGS,
    "M2D alone": {**EMBEDDINGS, "contrastive_weight": 0.0},
    "stage 1 of 2024": {**EMBEDDINGS, "projector_config": {"projector_type": "mlp", "hidden_size": 24}},
    "stage 2, encoder trained": ALIGNED,
    "stage 2": {**ALIGNED, "freeze": True},
}
REFERENCE = {
    "aligned": {**ALIGNED, "reference_gather": True},
    "joint": {**EMBEDDINGS, "reference_gather": True},
}


def make_model(freeze=False, **overrides):
    torch.manual_seed(0)
    config = tiny_m2d_clap_config(**{"contrastive_weight": 0.5, **overrides})
    model = M2dClapForPreTraining(config).train().double()  # the rounding of float32 alone comes near 1e-6
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if freeze:
        model.m2d_clap.audio_model.requires_grad_(False)
    if config.contrastive_weight == 0:  # DDP waits for every parameter that could get gradient
        for name in ("audio_projection", "text_projection", "logit_scale"):
            getattr(model.m2d_clap, name).requires_grad_(False)
    return model


def make_batch(config, step):
    """Clips of 7, 1 | 4, 3 columns with masks of very different sizes: every mean over tokens has uneven halves."""
    batch = tiny_batch(config if config.text_config else config.audio_config, seed=step)
    batch.pop("labels", None)
    generator = torch.Generator().manual_seed(step)
    draws = torch.rand(4, 35, generator=generator)
    batch["masked_positions"] = draws < torch.tensor([[0.8], [0.5], [0.3], [0.4]])
    batch["masked_positions"][:, 0] = True
    batch["masked_positions"][:, 7] = False
    batch["input_features"] = batch["input_features"].double()
    if config.text_config is None and config.contrastive_weight > 0:
        batch["text_embeddings"] = torch.randn(4, 10, generator=generator).double()
    if config.contrastive_weight == 0:
        batch = {name: value for name, value in batch.items() if name.startswith(("input_features", "masked"))}
    return batch


def half_of(batch, rank):
    """The rows of one process, cut to the longest of them."""
    half = {name: value[2 * rank : 2 * rank + 2] for name, value in batch.items()}
    frames = max(CLIP_FRAMES[2 * rank : 2 * rank + 2])
    for name in ("input_features", "input_features_mask"):
        half[name] = half[name][:, :frames]
    half["masked_positions"] = half["masked_positions"].view(2, 5, 7)[:, :, : -(-frames // 16)].flatten(1)
    if "input_ids" in half:
        tokens = int(half["attention_mask"].sum(1).max())
        for name in ("input_ids", "attention_mask"):
            half[name] = half[name][:, :tokens]
    return half


def train(wrapped, model, batches):
    """Gradients of the first step, then two steps of SGD with teacher updates; everything a run carries on."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    results = {"terms": []}
    for batch in batches:
        output = wrapped(**batch)
        output.loss.backward()
        if "gradients" not in results:
            results["gradients"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results["terms"].append({name: term.detach() for name, term in output.loss_terms.items()})
        optimizer.step()
        optimizer.zero_grad()
        model.after_optimizer_step()
        model.update_teacher(0.9)
    results["state"] = {name: value.clone() for name, value in model.state_dict().items()}
    return results


def worker(rank, folder):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    results = {}
    for name, overrides in {**VARIANTS, **REFERENCE}.items():
        model = make_model(**overrides)
        batches = [half_of(make_batch(model.config, step), rank) for step in range(STEPS)]
        results[name] = train(DistributedDataParallel(model), model, batches)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of the two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def run_alone(**overrides):
    model = make_model(**overrides)
    return train(model, model, [make_batch(model.config, step) for step in range(STEPS)])


@pytest.fixture(scope="module")
def one():
    """The same training in one process on the whole batch, by variant."""
    return {name: run_alone(**overrides) for name, overrides in VARIANTS.items()}


def largest_difference(got, wanted):
    """Largest difference of two sets of tensors, each relative to its own norm; key biases get only rounding."""
    assert got.keys() == wanted.keys()
    return max(
        ((got[name] - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-300)).item()
        for name in wanted
        if not name.endswith(("k_proj.bias", "key.bias"))
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_of_two_processes_equal_those_of_one(two, one, name):
    assert len(one[name]["gradients"]) > 50
    for rank in range(WORLD):
        assert largest_difference(two[rank][name]["gradients"], one[name]["gradients"]) < 1e-6


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_and_teacher_agree_after_two_steps(two, one, name):
    wanted = one[name]["state"]
    for rank in range(WORLD):
        assert largest_difference(two[rank][name]["state"], wanted) < 1e-6
    for key, value in two[0][name]["state"].items():
        assert torch.equal(value, two[1][name]["state"][key]), key
    start = make_model(**VARIANTS[name]).state_dict()
    moved = {key for key, value in wanted.items() if not torch.equal(value, start[key])}
    assert any(key.startswith("teacher_layers") for key in moved) == ("stage 2" not in name)
    assert any("audio_model" in key for key in moved) == (name != "stage 2")


@pytest.mark.parametrize("name", VARIANTS)
def test_mean_of_the_loss_terms_is_that_of_one_process(two, one, name):
    for step in range(STEPS):
        for term, value in one[name]["terms"][step].items():
            halves = [two[rank][name]["terms"][step][term] for rank in range(WORLD)]
            torch.testing.assert_close(sum(halves) / WORLD, value, rtol=1e-6, atol=1e-6)
            assert abs(halves[0] - halves[1]) > 1e-4  # the halves are not alike


def test_gather_of_the_published_code_halves_the_gradient_of_the_encoders(two):
    """Only what stands before the similarities: the scale itself gets its whole gradient."""
    wanted = run_alone(**ALIGNED)["gradients"]
    scale = "m2d_clap.logit_scale.log_scale"
    for rank in range(WORLD):
        got = two[rank]["aligned"]["gradients"]
        assert got.keys() == wanted.keys()
        assert got[scale].item() == pytest.approx(wanted[scale].item(), rel=1e-6)
        halves = {name: grad / WORLD for name, grad in wanted.items() if name != scale}
        assert largest_difference({name: got[name] for name in halves}, halves) < 1e-5  # float32, in another order


def test_gather_of_the_published_code_leaves_the_masked_loss_alone(two):
    """The joint gradient is that of a quarter of the contrastive weight with four processes, of half with two."""
    wanted = run_alone(**{**EMBEDDINGS, "contrastive_weight": 0.5 / WORLD})["gradients"]
    for rank in range(WORLD):
        got = dict(two[rank]["joint"]["gradients"])
        scale = got.pop("m2d_clap.logit_scale.log_scale")
        half = dict(wanted)
        assert scale.item() == pytest.approx(WORLD * half.pop("m2d_clap.logit_scale.log_scale").item(), rel=1e-6)
        assert largest_difference(got, half) < 1e-6


def test_gather_of_the_published_code_gives_the_true_value(two, one):
    wanted = run_alone(**ALIGNED)["terms"][0]["contrastive"]
    for rank in range(WORLD):  # every process scores all pairs
        torch.testing.assert_close(two[rank]["aligned"]["terms"][0]["contrastive"], wanted, rtol=1e-6, atol=1e-6)


def test_gather_of_the_published_code_is_the_true_one_in_one_process():
    wanted, got = run_alone(**ALIGNED), run_alone(**REFERENCE["aligned"])
    assert largest_difference(got["gradients"], wanted["gradients"]) < 1e-5  # float32, in another order
