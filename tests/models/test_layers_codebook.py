# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sparsemax against its published formula and the codebook against a plain restatement, with gradients."""

import math

import pytest
import torch

from hf_audiolang.models.layers_codebook import SharedCodebook, sparsemax

NUM_CODEWORDS, WIDTH = 13, 6
MASK = torch.arange(7) < torch.tensor([[6], [1], [4]])  # every row has a masked position, as every text has


def normal(*shape, seed=0, scale=1.0, dtype=torch.float32):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference_sparsemax(row):
    """Algorithm 1 of Martins & Astudillo for a list of Python floats (float64)."""
    ordered, total, threshold = sorted(row, reverse=True), 0.0, 0.0
    for k, score in enumerate(ordered, start=1):
        total += score
        if 1 + k * score > total:
            threshold = (total - 1) / k
    return [max(score - threshold, 0.0) for score in row]


def reference_rows(scores):
    flat = scores.double().reshape(-1, scores.shape[-1])
    return torch.tensor([reference_sparsemax(row.tolist()) for row in flat], dtype=torch.float64).view(scores.shape)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", [(5,), (3, 1), (7, 311), (2, 3, 29)])
def test_sparsemax_is_the_sort_formula(shape, scale):
    scores = normal(*shape, scale=scale) + 3 * scale
    wanted = reference_rows(scores)
    torch.testing.assert_close(sparsemax(scores.double()), wanted, rtol=1e-9, atol=1e-11)
    # float32 scores of 1e4 are a multiple of 1e-3, their differences are exact: only the sums round
    torch.testing.assert_close(sparsemax(scores).double(), wanted, rtol=1e-5, atol=1e-6)


def test_sparsemax_of_many_codewords_has_the_reference_support():
    scores = normal(3, 4096, scale=30 / 4096)
    wanted = reference_rows(scores)
    got = sparsemax(scores)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-8)
    assert ((got > 0) == (wanted > 0)).all()
    assert ((got > 0).sum(-1) > 200).all()
    assert ((got > 0).sum(-1) < 400).all()
    torch.testing.assert_close(got.sum(-1), torch.ones(3), rtol=1e-6, atol=0)


def test_sparsemax_of_hand_computed_rows():
    got = sparsemax(torch.tensor([[0.5, 0.0, -0.2], [1.2, 0.9, -4.0], [0.0, 1.0, 3.0]]))
    # thresholds (0.5 + 0 - 0.2 - 1) / 3, (1.2 + 0.9 - 1) / 2 and 3 - 1
    wanted = torch.tensor([[2.2 / 3, 0.7 / 3, 0.1 / 3], [0.65, 0.35, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


def test_sparsemax_gives_equal_weights_to_ties():
    got = sparsemax(torch.tensor([[2.0, 2.0, 2.0, -9.0], [-5.0, 0.4, 0.4, 0.1]]))
    wanted = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0], [0.0, 1.3 / 3, 1.3 / 3, 0.4 / 3]])
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)
    # a score that lies exactly on the threshold gets nothing, and so do its equals
    torch.testing.assert_close(sparsemax(torch.tensor([1.0, 0.0, 0.0])), torch.tensor([1.0, 0.0, 0.0]))


def test_sparsemax_runs_from_uniform_to_one_hot():
    scores = normal(3, 101)
    uniform = torch.full_like(scores, 1 / 101)
    torch.testing.assert_close(sparsemax(1e-9 * scores), uniform, rtol=1e-5, atol=0)
    torch.testing.assert_close(sparsemax(torch.full((3, 101), -7e5)), uniform, rtol=1e-6, atol=0)
    one_hot = torch.nn.functional.one_hot(scores.argmax(-1), 101).float()
    assert torch.equal(sparsemax(1e6 * scores), one_hot)
    assert not torch.equal(sparsemax(scores), one_hot)  # control


def test_sparsemax_leaves_out_minus_infinity_and_shows_nan():
    scores = torch.tensor([[0.2, -math.inf, 0.4, -math.inf]])
    torch.testing.assert_close(sparsemax(scores), torch.tensor([[0.4, 0.0, 0.6, 0.0]]))
    assert sparsemax(torch.tensor([[0.2, math.nan, 0.4]])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sparsemax_of_half_precision_is_computed_in_float32(dtype):
    scores = normal(3, 4096, scale=1e-3).to(dtype)
    got = sparsemax(scores)
    assert got.dtype == dtype
    assert torch.equal(got, sparsemax(scores.float()).to(dtype))
    torch.testing.assert_close(got.double().sum(-1), torch.ones(3).double(), rtol=2e-3, atol=0)
    probes = normal(3, 4096, seed=1).to(dtype)
    half, full = scores.clone().requires_grad_(), scores.float().requires_grad_()
    (sparsemax(half) * probes).sum().backward()
    (sparsemax(full) * probes.float()).sum().backward()
    assert torch.equal(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize("shape", [(9,), (5, 9), (2, 3, 4)])
def test_sparsemax_passes_gradcheck_twice(shape):
    scores = normal(*shape, scale=0.5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(sparsemax, scores)
    assert torch.autograd.gradgradcheck(sparsemax, scores)


def test_gradient_of_sparsemax_is_centred_on_the_support():
    scores = torch.tensor([[1.2, 0.9, -4.0], [3.0, 0.0, 1.0]], requires_grad=True)
    (sparsemax(scores) * torch.tensor([[5.0, 1.0, 7.0], [5.0, 1.0, 7.0]])).sum().backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[2.0, -2.0, 0.0], [0.0, 0.0, 0.0]]))


def test_compiled_sparsemax_equals_the_plain_one():
    scores, twin = normal(3, 29).requires_grad_(), normal(3, 29).requires_grad_()
    probes = normal(3, 29, seed=1)
    compiled = torch.compile(lambda tensor: 2 * sparsemax(3 * tensor), backend="aot_eager")
    got, wanted = compiled(scores), 2 * sparsemax(3 * twin)
    assert torch.equal(got, wanted)
    (got * probes).sum().backward()
    (wanted * probes).sum().backward()
    torch.testing.assert_close(scores.grad, twin.grad, rtol=1e-6, atol=1e-7)


def make_codebook(**options):
    torch.manual_seed(0)
    # the default divisor would leave 13 codewords at equal weights
    return SharedCodebook(NUM_CODEWORDS, WIDTH, **{"affinity_divisor": 4.0, **options})


def restated(features, codewords, mask, mask_mode="zero", divisor=4.0, cosine=False):
    """The released code's steps, in float64 and clip by clip."""
    features, codewords = features.double(), codewords.double()
    weights = []
    for number, clip in enumerate(features):
        affinity = clip @ codewords.T
        if cosine:
            affinity = affinity / (clip.norm(dim=-1, keepdim=True) * codewords.norm(dim=-1))
        if mask is not None and mask_mode == "zero":
            affinity = affinity * mask[number].double().unsqueeze(-1)
        elif mask is not None:
            affinity = affinity[mask[number]]
        highest = torch.stack([column.max() for column in (affinity / divisor).T])
        ordered = highest.sort(descending=True).values
        k = max(k for k in range(1, len(ordered) + 1) if 1 + k * ordered[k - 1] > ordered[:k].sum())
        weights.append((highest - (ordered[:k].sum() - 1) / k).clamp(min=0))
    weights = torch.stack(weights)
    return weights @ codewords, weights


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("mask_mode", ["zero", "neg_inf", None])
def test_codebook_equals_the_restatement_with_gradients(mask_mode, cosine):
    divisor = 4.0 if cosine else 30.0  # so small scores that negative ones count
    codebook = make_codebook(mask_mode=mask_mode or "zero", normalize_affinity=cosine, affinity_divisor=divisor)
    mask = MASK if mask_mode else None
    features, other_features = normal(3, 7, WIDTH).requires_grad_(), normal(3, 7, WIDTH).requires_grad_()
    other_codewords = codebook.weight.detach().clone().requires_grad_()
    got = codebook(features, mask)
    wanted = restated(other_features, other_codewords, mask, mask_mode, divisor, cosine)
    for ours, theirs, seed in zip(got, wanted, (1, 2), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
        probes = normal(*ours.shape, seed=seed)
        (ours * probes).sum().backward(retain_graph=True)
        (theirs * probes).sum().backward(retain_graph=True)
    torch.testing.assert_close(features.grad, other_features.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codebook.weight.grad, other_codewords.grad, rtol=1e-4, atol=1e-5)
    assert 1 < (got[1] > 0).sum(-1).float().mean() < NUM_CODEWORDS  # neither one-hot nor dense


def test_mask_modes_differ_and_zero_is_a_relu_of_the_maximum():
    features = normal(3, 7, WIDTH)
    zero, neg_inf = make_codebook(affinity_divisor=30.0), make_codebook(affinity_divisor=30.0, mask_mode="neg_inf")
    codewords = zero.weight.detach()
    highest = torch.stack([(row[kept] @ codewords.T / 30.0).amax(0) for row, kept in zip(features, MASK, strict=True)])
    assert (highest < 0).any()
    torch.testing.assert_close(zero(features, MASK)[1], sparsemax(highest.relu()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(neg_inf(features, MASK)[1], sparsemax(highest), rtol=1e-5, atol=1e-6)
    assert (zero(features, MASK)[1] - neg_inf(features, MASK)[1]).abs().max() > 1e-3  # control


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("mask_mode", ["zero", "neg_inf"])
def test_length_and_content_of_padding_do_not_matter(mask_mode, cosine, pooling):
    codebook = make_codebook(mask_mode=mask_mode, normalize_affinity=cosine, pooling=pooling, affinity_divisor=0.8)
    features = normal(3, 7, WIDTH)
    base = codebook(features, MASK)
    longer = torch.nn.functional.pad(features, (0, 0, 0, 5), value=50.0)
    longer_mask = torch.nn.functional.pad(MASK, (0, 5))
    longer = longer.masked_fill(~longer_mask.unsqueeze(-1), math.nan).requires_grad_()
    padded = codebook(longer, longer_mask.long())  # 0/1 is a mask too
    torch.testing.assert_close(padded, base, rtol=1e-5, atol=1e-6)
    padded[0].square().sum().backward()
    assert codebook.weight.grad.isfinite().all()
    assert (longer.grad[~longer_mask] == 0).all()
    for row, kept in enumerate([7, 2, 5]):  # alone, with one masked position: batch = single
        alone = codebook(features[row : row + 1, :kept], MASK[row : row + 1, :kept])
        torch.testing.assert_close(alone[0], base[0][row : row + 1], rtol=1e-5, atol=1e-6)
    assert (codebook(features)[0] - base[0]).abs().max() > 1e-2  # control: without a mask they are seen


def test_a_row_without_masked_positions_is_clipped_at_zero_by_the_first_padding_in_zero_mode_only():
    features, real = normal(3, 7, WIDTH)[:, :2], torch.ones(3, 2, dtype=torch.bool)
    padded, mask = torch.nn.functional.pad(features, (0, 0, 0, 4)), torch.nn.functional.pad(real, (0, 4))
    zero, neg_inf = make_codebook(affinity_divisor=30.0), make_codebook(affinity_divisor=30.0, mask_mode="neg_inf")
    torch.testing.assert_close(zero(features, real), zero(features))
    torch.testing.assert_close(neg_inf(padded, mask), neg_inf(features), rtol=1e-5, atol=1e-6)
    assert (zero(padded, mask)[1] - zero(features)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("mask_mode", ["zero", "neg_inf"])
def test_a_row_without_real_positions_gets_equal_weights(mask_mode):
    codebook = make_codebook(mask_mode=mask_mode)
    mask = MASK.clone()
    mask[1] = False
    embeds, weights = codebook(normal(3, 7, WIDTH), mask)
    torch.testing.assert_close(weights[1], torch.full((NUM_CODEWORDS,), 1 / NUM_CODEWORDS))
    torch.testing.assert_close(embeds[1], codebook.weight.mean(0), rtol=1e-5, atol=1e-6)
    embeds.sum().backward()
    assert codebook.weight.grad.isfinite().all()


def test_frame_weights_are_those_of_single_frames():
    codebook = make_codebook()
    features = normal(3, 7, WIDTH)
    weights = codebook.frame_weights(features)
    embeds, single = codebook(features.reshape(21, 1, WIDTH))
    torch.testing.assert_close(weights, single.view(3, 7, NUM_CODEWORDS), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights @ codebook.weight, embeds.view(3, 7, WIDTH), rtol=1e-5, atol=1e-5)
    assert (weights - codebook(features)[1].unsqueeze(1)).abs().max() > 1e-2  # control: not the clip's


@pytest.mark.parametrize("activation", ["sparsemax", "softmax"])
def test_mean_pooling_averages_the_affinities_of_real_positions(activation):
    codebook = make_codebook(pooling="mean", activation=activation)
    features = normal(3, 7, WIDTH)
    affinity = (features @ codebook.weight.T / 4.0).detach()
    scores = torch.stack([row[kept].mean(0) for row, kept in zip(affinity, MASK, strict=True)])
    wanted = reference_rows(scores) if activation == "sparsemax" else scores.double().softmax(-1)
    torch.testing.assert_close(codebook(features, MASK)[1].double(), wanted, rtol=1e-5, atol=1e-6)


def test_default_divisor_is_that_of_the_released_code():
    codebook = SharedCodebook(NUM_CODEWORDS, 1024)
    assert codebook.affinity_divisor == 32000
    features = normal(2, 3, 1024, scale=60.0)
    wanted = restated(features, codebook.weight, None, divisor=math.sqrt(1024) * 1000)
    torch.testing.assert_close(codebook(features)[1].double(), wanted[1], rtol=1e-4, atol=1e-6)


def test_codewords_are_the_only_parameter_and_start_standard_normal():
    torch.manual_seed(0)
    codebook = SharedCodebook(512, 64)
    assert {name: tuple(tensor.shape) for name, tensor in codebook.state_dict().items()} == {"weight": (512, 64)}
    assert abs(codebook.weight.mean().item()) < 0.02  # 3.6 standard errors
    assert abs(codebook.weight.std().item() - 1) < 0.02  # 5 standard errors


def test_autocast_changes_nothing_and_half_precision_features_give_float32():
    codebook = make_codebook()
    features = normal(3, 7, WIDTH)
    plain, plain_frames = codebook(features, MASK), codebook.frame_weights(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (features @ codebook.weight.T).dtype == torch.bfloat16  # control
        cast, cast_frames = codebook(features, MASK), codebook.frame_weights(features)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)
    torch.testing.assert_close(cast_frames, plain_frames, rtol=0, atol=0)
    half = features.bfloat16()
    torch.testing.assert_close(codebook(half, MASK), codebook(half.float(), MASK), rtol=0, atol=0)


@pytest.mark.parametrize("mask_mode", ["zero", "neg_inf"])
def test_codebook_passes_gradcheck(mask_mode):
    codebook = make_codebook(mask_mode=mask_mode).double()
    features = normal(3, 7, WIDTH, dtype=torch.float64).requires_grad_()
    codewords = codebook.weight.detach().clone().requires_grad_()

    def call(features, codewords):
        return torch.func.functional_call(codebook, {"codebook": codewords}, (features, MASK))

    assert torch.autograd.gradcheck(call, (features, codewords))


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"mask_mode": "ones"}, r"Unknown `mask_mode` 'ones'. Choose one of \['neg_inf', 'zero'\]"),
        ({"pooling": "sum"}, r"Unknown `pooling` 'sum'. Choose one of \['max', 'mean'\]"),
        ({"activation": "relu"}, r"Unknown `activation` 'relu'. Choose one of \['softmax', 'sparsemax'\]"),
        ({"affinity_divisor": 0.0}, r"`affinity_divisor` must be positive, got 0.0. Pass None"),
    ],
)
def test_unknown_options_are_refused(options, advice):
    with pytest.raises(ValueError, match=advice):
        make_codebook(**options)
