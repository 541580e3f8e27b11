# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Two processes on half batches against one process on the whole batch.

The workers run once for the whole file; each test compares one part of what they wrote.
"""

import os
import warnings

import pytest
import torch
import torch.distributed as dist
from tiny import (
    tiny_batch,
    tiny_captionstew_config,
    tiny_mga_clap_config,
    tiny_slap_audio_config,
    tiny_slap_config,
)
from torch.nn.parallel import DistributedDataParallel

from hf_audiolang import CaptionStewForPreTraining, MgaClapModel, SlapForPreTraining
from hf_audiolang.models import losses_distributed
from hf_audiolang.models.losses_contrastive import contrastive_loss, sigmoid_contrastive_loss
from hf_audiolang.models.losses_distributed import (
    gather_rows,
    gather_unequal_rows,
    global_mean,
    max_over_processes,
    sum_over_processes,
)
from hf_audiolang.models.losses_masked import sinkhorn_targets
from hf_audiolang.training.objectives import has_unused_parameters

pytestmark = pytest.mark.multiprocess

WORLD = 2
STEPS = 2
VARIANTS = {
    "paper": {},
    "token weights": {"masked_loss_weighting": "token"},
    "sigmoid loss": {"contrastive_loss": "sigmoid", "logit_bias_init_value": -2.0},
    "sinkhorn": {"target_centering": "sinkhorn"},
    "shared pass": {"share_masked_pass": True},
}
MGA_VARIANTS = {  # of a tower without batch norm, whose statistics are those of one process
    "codebook": {"affinity_divisor": 60.0},
    "row denominator": {"affinity_divisor": 60.0, "hard_negative_denominator": "row"},
    "word by word": {"aggregation": "wstag"},
    "own pairs only": {"affinity_divisor": 60.0, "gather_embeddings": False},
}
STEW_VARIANTS = {  # of which one process holds one clip, the other three
    "sum and captions": {},
    "mean over clips": {"loss_reduction": "mean", "caption_weight": 0},
    "pair by pair": {"contrastive_loss": "sigmoid", "caption_weight": 0},
}
UNEQUAL = (slice(0, 1), slice(1, 4))
CLIP_IDS = torch.tensor([3, 8, 3, 1])  # the clip that is seen twice is seen by both processes


def make_model(**overrides):
    torch.manual_seed(0)
    config = tiny_slap_config(
        spec_augment_time_stripes=0,
        spec_augment_mel_stripes=0,
        decoder_config={"dropout": 0.0},
        freeze_prototypes_warmup=0.0,
        **overrides,
    )
    model = SlapForPreTraining(config).train().double()  # the rounding of float32 alone comes near 1e-6
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch(step):
    """Caption lengths 7, 3 | 9, 5 and clip lengths 7, 1 | 4, 3: every mean over tokens has uneven halves."""
    batch = tiny_batch(tiny_slap_config(), seed=step)
    num_tokens = 4 * -(-batch["input_features"].shape[1] // 16)
    draws = torch.rand(4, num_tokens, generator=torch.Generator().manual_seed(step))
    batch["masked_positions"] = draws < torch.tensor([[0.5], [0.6], [0.2], [0.7]])
    batch["masked_positions"][:, 0] = True
    batch["input_features"] = batch["input_features"].double()
    return batch


def half_of(batch, rank):
    """The rows of one of two equal processes."""
    return part_of(batch, slice(2 * rank, 2 * rank + 2))


def part_of(batch, rows):
    """The rows of one process, cut to the longest of them."""
    half = {name: value[rows] for name, value in batch.items()}
    tokens = int(half["attention_mask"].sum(1).max())
    frames = int(half["input_features_mask"].sum(1).max())
    lengths = {"input_ids": tokens, "attention_mask": tokens, "labels": tokens, "input_features": frames}
    lengths |= {"input_features_mask": frames, "masked_positions": 4 * -(-frames // 16)}
    return {name: value[:, : lengths[name]] for name, value in half.items()}


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
        model.update_teacher(0.9)
    results["state"] = {name: value.clone() for name, value in model.state_dict().items()}
    return results


def make_mga(**overrides):
    torch.manual_seed(0)
    config = tiny_mga_clap_config(audio_config=tiny_slap_audio_config(), hard_negative_gamma=0.5, **overrides)
    model = MgaClapModel(config).train().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.temperature.fill_(0.1)
    return model


def mga_gradients(wrapped, model, batch, clip_ids):
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "masked_positions")}
    output = wrapped(**inputs, clip_ids=clip_ids, return_loss=True)
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"gradients": gradients, "loss": output.loss.detach()}


def make_stew(**overrides):
    torch.manual_seed(0)
    config = tiny_captionstew_config(spec_augment_time_stripes=0, spec_augment_mel_stripes=0, **overrides)
    model = CaptionStewForPreTraining(config).train().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def stew_gradients(wrapped, model, batch):
    output = wrapped(**{name: value for name, value in batch.items() if name not in ("labels", "masked_positions")})
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"gradients": gradients, "terms": {name: term.detach() for name, term in output.loss_terms.items()}}


def gather_without_gradient(rows):
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.detach())
    gathered[dist.get_rank()] = rows
    return torch.cat(gathered)


def gradients_of_losses(rows, rank, loss):
    """Gradients of a contrastive loss, averaged over processes as DDP does, for this process's rows."""
    leaves = [part[rows].clone().requires_grad_() for part in embeddings()]
    scale = torch.tensor(5.0, requires_grad=True)
    numbers = (scale,) if loss is contrastive_loss else (scale, torch.tensor(-1.0))
    value = loss(*leaves, *numbers)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves), scale.grad]


def embeddings():
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(torch.randn(2, 6, 5, generator=generator), dim=-1).unbind()


def scores():
    return torch.nn.functional.normalize(torch.randn(9, 7, generator=torch.Generator().manual_seed(4)), dim=-1)


def worker(rank, folder):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    results = {}
    for name, overrides in VARIANTS.items():
        model = make_model(**overrides)
        wrapped = DistributedDataParallel(model)
        results[name] = train(wrapped, model, [half_of(make_batch(step), rank) for step in range(STEPS)])
    for name, overrides in MGA_VARIANTS.items():
        model = make_mga(**overrides)
        own = half_of(make_batch(0), rank), CLIP_IDS[2 * rank : 2 * rank + 2]
        wrapped = DistributedDataParallel(model, find_unused_parameters=has_unused_parameters(model))
        results[name] = mga_gradients(wrapped, model, *own)
    for name, overrides in STEW_VARIANTS.items():
        model = make_stew(**overrides)
        wrapped = DistributedDataParallel(model, find_unused_parameters=has_unused_parameters(model))
        results[name] = stew_gradients(wrapped, model, part_of(make_batch(0), UNEQUAL[rank]))
    results["unequal rows"] = gather_unequal_rows(torch.full((2 - rank, 3), float(rank)))
    rows = slice(3 * rank, 3 * rank + 3)
    for loss in (contrastive_loss, sigmoid_contrastive_loss):
        results[loss.__name__] = gradients_of_losses(rows, rank, loss)
    results["sinkhorn targets"] = sinkhorn_targets(scores()[:4] if rank == 0 else scores()[4:], 0.05)
    results["sum"] = sum_over_processes(torch.tensor([1.0 + rank, 10.0]))
    results["max"] = max_over_processes(torch.tensor([1.0 + rank, 10.0 - rank]))
    results["mean"] = global_mean(torch.tensor(6.0 + 4 * rank), torch.tensor(1 + 3 * rank))
    results["empty mean"] = global_mean(torch.tensor(0.0), torch.tensor(0))
    results["rows"] = gather_rows(torch.full((2, 3), float(rank)))
    # the control comes last: the package's gather is replaced by one that drops the gradient
    from hf_audiolang.models import losses_contrastive

    losses_contrastive.gather_rows = gather_without_gradient
    model = make_model()
    results["no gradient"] = train(DistributedDataParallel(model), model, [half_of(make_batch(0), rank)])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of the two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.fixture(scope="module")
def one():
    """The same training in one process on the whole batch, by variant."""
    results = {}
    for name, overrides in VARIANTS.items():
        model = make_model(**overrides)
        results[name] = train(model, model, [make_batch(step) for step in range(STEPS)])
    return results


def largest_difference(got, wanted):
    """Largest difference of two sets of tensors, each relative to its own norm."""
    assert got.keys() == wanted.keys()
    return max(((got[name] - wanted[name]).norm() / wanted[name].norm()).item() for name in wanted)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_of_two_processes_equal_those_of_one(two, one, name):
    assert len(one[name]["gradients"]) > 80
    for rank in range(WORLD):
        assert largest_difference(two[rank][name]["gradients"], one[name]["gradients"]) < 1e-6


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_teacher_and_centre_agree_after_two_steps(two, one, name):
    wanted = one[name]["state"]
    assert wanted["teacher_center"].abs().max() > 1e-3
    for rank in range(WORLD):
        assert largest_difference(two[rank][name]["state"], wanted) < 1e-5  # rounding of two steps
    for key, value in two[0][name]["state"].items():
        assert torch.equal(value, two[1][name]["state"][key]), key


@pytest.mark.parametrize("name", VARIANTS)
def test_mean_of_the_loss_terms_is_that_of_one_process(two, one, name):
    for step in range(STEPS):
        for term, value in one[name]["terms"][step].items():
            halves = [two[rank][name]["terms"][step][term] for rank in range(WORLD)]
            torch.testing.assert_close(sum(halves) / WORLD, value, rtol=1e-5, atol=1e-6)
            assert abs(halves[0] - halves[1]) > 1e-4  # the halves are not alike


def test_gathering_without_gradient_would_be_seen(two, one):
    """Control: the usual mistake changes the gradient of the encoders."""
    got, wanted = two[0]["no gradient"], one["paper"]
    assert largest_difference(got["gradients"], wanted["gradients"]) > 1e-2
    torch.testing.assert_close(
        sum(two[rank]["no gradient"]["terms"][0]["contrastive"] for rank in range(WORLD)) / WORLD,
        wanted["terms"][0]["contrastive"],
    )  # the value alone does not show it


@pytest.mark.parametrize("name", MGA_VARIANTS)
def test_hard_negatives_are_those_of_all_processes(two, name):
    model = make_mga(**MGA_VARIANTS[name])
    wanted = mga_gradients(model, model, make_batch(0), CLIP_IDS)
    losses = [two[rank][name]["loss"] for rank in range(WORLD)]
    # the gradient of a bias of keys is 0 but for rounding, and that of a codeword in no support is 0
    kept = [key for key, gradient in wanted["gradients"].items() if gradient.norm() > 1e-6]
    assert len(kept) > 60
    gradients = ({key: part["gradients"][key] for key in kept} for part in (two[0][name], wanted))
    difference = largest_difference(*gradients)
    if name == "own pairs only":  # control: then they are not
        assert difference > 1e-2
    else:
        assert difference < 1e-6
        torch.testing.assert_close(sum(losses) / WORLD, wanted["loss"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", STEW_VARIANTS)
def test_captionstew_may_have_unequal_batches(two, name):
    model = make_stew(**STEW_VARIANTS[name])
    wanted = stew_gradients(model, model, make_batch(0))
    kept = [key for key, gradient in wanted["gradients"].items() if gradient.norm() > 1e-6]  # see above
    assert len(kept) > 60
    for rank in range(WORLD):
        gradients = ({key: part["gradients"][key] for key in kept} for part in (two[rank][name], wanted))
        assert largest_difference(*gradients) < 1e-6
    for term, value in wanted["terms"].items():
        halves = [two[rank][name]["terms"][term] for rank in range(WORLD)]
        torch.testing.assert_close(sum(halves) / WORLD, value, rtol=1e-6, atol=1e-7)
        if term != "regularizer":  # which every process computes of all rows
            assert abs(halves[0] - halves[1]) > 1e-4


@pytest.mark.parametrize("loss", [contrastive_loss, sigmoid_contrastive_loss])
def test_contrastive_gradients_of_the_rows(two, loss):
    value, *grads = gradients_of_losses(slice(None), 0, loss)
    parts = [two[rank][loss.__name__] for rank in range(WORLD)]
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / WORLD, value)
    for index in (1, 2):
        joined = torch.cat([parts[0][index], parts[1][index]]) / WORLD
        torch.testing.assert_close(joined, grads[index - 1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close((parts[0][3] + parts[1][3]) / WORLD, grads[2], rtol=1e-5, atol=1e-7)


def test_sinkhorn_balances_over_all_processes(two):
    joined = torch.cat([two[rank]["sinkhorn targets"] for rank in range(WORLD)])
    torch.testing.assert_close(joined, sinkhorn_targets(scores(), 0.05), rtol=1e-5, atol=1e-6)
    apart = torch.cat([sinkhorn_targets(scores()[:4], 0.05), sinkhorn_targets(scores()[4:], 0.05)])
    assert (apart - joined).abs().max() > 1e-2  # control: each process alone balances otherwise


def test_sums_maxima_and_means_by_hand(two):
    for rank in range(WORLD):
        assert two[rank]["sum"].tolist() == [3.0, 20.0]
        assert two[rank]["max"].tolist() == [2.0, 10.0]
        assert two[rank]["rows"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
        assert two[rank]["empty mean"] == 0
        gathered, offset = two[rank]["unequal rows"]
        assert gathered.tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
        assert offset == 2 * rank
    # (6 + 10) / (1 + 4), of which each process holds its part
    assert (two[0]["mean"] + two[1]["mean"]).item() / WORLD == pytest.approx(16 / 5)


def test_one_process_needs_no_group():
    rows = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert gather_rows(rows) is rows
    assert gather_unequal_rows(rows) == (rows, 0)
    assert (losses_distributed.world_size(), losses_distributed.process_rank()) == (1, 0)
    value = torch.tensor([1.0, 2.0])
    assert torch.equal(sum_over_processes(value), value)
    assert torch.equal(max_over_processes(value), value)
    assert global_mean(torch.tensor(6.0), torch.tensor(4)).item() == 1.5
