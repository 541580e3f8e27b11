"""Sweeps of probes: each run equals one of torch's modules trained alone; attention is torch's own; padding."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from hf_audiolang.evaluation.probe_training import (
    ProbeClips,
    ProbeRecipe,
    Sweep,
    attention_pooling,
    clip_losses,
    first_weights,
    predict,
    probe_logits,
    probe_score,
    train_sweep,
)

WIDTH, NUM_CLASSES = 6, 3
RECIPE = ProbeRecipe(learning_rates=(3e-3, 3e-2), num_epochs=4, batch_clips=8, dropout=0.3, max_heads=5)
LENGTHS = torch.tensor([5, 2, 7, 1, 3, 4, 6, 2, 5, 3, 1, 4, 8, 2, 3, 5, 6, 1, 4, 2, 7, 3, 5])


class TorchProbe(nn.Module):
    """One probe of torch's modules; heads, query and key have no more freedom than ours."""

    def __init__(self, weights):
        super().__init__()
        self.classifier = nn.Linear(WIDTH, NUM_CLASSES)
        self.classifier.load_state_dict({name: weights[f"classifier.{name}"] for name in ("weight", "bias")})
        self.is_attention = "query" in weights
        if self.is_attention:
            self.query = nn.Parameter(weights["query"].reshape(1, WIDTH))
            self.attention, self.norm = torch_attention(weights), nn.LayerNorm(WIDTH)

    def pooled(self, clip):
        if not self.is_attention:
            return clip.mean(0)
        return self.norm(self.attention(self.query, clip, clip, need_weights=False)[0][0])

    def forward(self, clips, dropped):
        pooled = torch.stack([self.pooled(clip) for clip in clips])  # clip by clip: no padding
        return self.classifier(pooled if dropped is None else pooled * dropped)


def torch_attention(weights):
    attention = nn.MultiheadAttention(WIDTH, weights["query"].shape[0], batch_first=True)
    identity = torch.eye(WIDTH)
    projections = [identity, *(weights[f"{name}.weight"].reshape(WIDTH, WIDTH) for name in ("key", "value"))]
    biases = [torch.zeros(WIDTH), torch.randn(WIDTH), weights["value.bias"].flatten()]  # any key bias will do
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat(projections))
        attention.in_proj_bias.copy_(torch.cat(biases))
        attention.out_proj.weight.copy_(weights["output.weight"])
        attention.out_proj.bias.copy_(weights["output.bias"])
    is_ours = torch.cat([torch.zeros(WIDTH), torch.ones(2 * WIDTH)])  # the query has no projection
    attention.in_proj_weight.register_hook(lambda grad: grad * is_ours.unsqueeze(1))
    attention.in_proj_bias.register_hook(lambda grad: grad * is_ours)
    return attention


def make_clips(is_multi_label, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    frames = torch.randn(int(LENGTHS.sum()), WIDTH, generator=generator).to(dtype)
    if is_multi_label:
        targets = (torch.rand(len(LENGTHS), NUM_CLASSES, generator=generator) < 0.4).float()
    else:
        targets = torch.arange(len(LENGTHS)) % NUM_CLASSES
    return ProbeClips(frames, LENGTHS.cumsum(0) - LENGTHS, LENGTHS, targets)


def trained_alone(pooling, clips, train_rows, dev_rows, seed, learning_rate):
    """(best epoch, dev score, dev loss, test logits of all clips) of one run, by torch alone."""
    generator = torch.Generator().manual_seed(seed)
    weights = first_weights(pooling, WIDTH, NUM_CLASSES, RECIPE, generator)
    probe = TorchProbe(weights).double()
    optimizer = torch.optim.Adam(probe.parameters(), lr=learning_rate)
    pieces = list(clips.frames.split(clips.lengths.tolist()))
    num_steps, step, best = RECIPE.num_epochs * math.ceil(len(train_rows) / RECIPE.batch_clips), 0, (0, -1, 0, None)
    is_multi_label = clips.targets.ndim == 2
    loss_of = nn.BCEWithLogitsLoss() if is_multi_label else nn.CrossEntropyLoss()
    targets = clips.targets.double() if is_multi_label else clips.targets
    for epoch in range(1, RECIPE.num_epochs + 1):
        order = train_rows[torch.randperm(len(train_rows), generator=generator)]
        for rows in order.split(RECIPE.batch_clips):
            dropped = None
            if pooling == "attention":
                dropped = (torch.rand(len(rows), WIDTH, generator=generator) >= 0.3).double() / 0.7
            optimizer.param_groups[0]["lr"] = learning_rate * math.cos(math.pi * step / num_steps / 2) ** 2
            optimizer.zero_grad()
            loss_of(probe([pieces[row] for row in rows], dropped), targets[rows]).backward()
            optimizer.step()
            step += 1
        with torch.no_grad():
            logits = probe(pieces, None)
        dev, wanted = logits[dev_rows], targets[dev_rows]
        if is_multi_label:
            score = average_precision_score(wanted.numpy(), dev.numpy(), average="macro")
        else:
            score = (dev.argmax(1) == wanted).double().mean().item()
        found = (epoch, score, loss_of(dev, wanted).item(), logits)
        if (score, -found[2]) > (best[1], -best[2]):
            best = found
    return best


@pytest.mark.parametrize(("pooling", "is_multi_label"), [("mean", False), ("attention", False), ("attention", True)])
def test_a_sweep_equals_single_runs_of_torchs_modules(pooling, is_multi_label):
    clips, seeds = make_clips(is_multi_label), (0, 3, 4)
    orders = torch.stack([torch.randperm(23, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    train_rows, dev_rows = orders[:, :14], orders[:, 14:]
    sweep = train_sweep(pooling, clips, train_rows, dev_rows, num_classes=NUM_CLASSES, seeds=seeds, recipe=RECIPE)
    all_rows = torch.arange(23).expand(3, -1)
    logits = predict(pooling, sweep.weights, clips, all_rows, 10)
    for r, learning_rate in enumerate(RECIPE.learning_rates):
        for z, seed in enumerate(seeds):
            epoch, score, loss, expected = trained_alone(
                pooling, clips, train_rows[z], dev_rows[z], seed, learning_rate
            )
            assert sweep.epochs[r, z] == epoch
            assert sweep.dev_scores[r, z] == pytest.approx(score, abs=1e-9)
            assert sweep.dev_losses[r, z] == pytest.approx(loss, abs=1e-5)
            torch.testing.assert_close(logits[r, z], expected, rtol=0, atol=1e-5)
    distances = [(a - b).abs().max() for a, b in pairwise(logits.flatten(0, 1))]
    assert min(distances) > 1e-2  # control: no two runs are alike
    assert len(set(sweep.epochs.flatten().tolist())) > 1  # runs stop by themselves


def test_attention_pooling_and_its_gradients_are_those_of_torchs_multi_head_attention():
    torch.manual_seed(1)
    weights = first_weights(
        "attention", WIDTH, NUM_CLASSES, ProbeRecipe(max_heads=3), torch.Generator().manual_seed(1)
    )
    weights = {name: torch.randn_like(values) for name, values in weights.items()}  # biases too
    expected = torch_attention(weights)
    norm = nn.LayerNorm(WIDTH)
    norm.load_state_dict({name: weights[f"norm.{name}"] for name in ("weight", "bias")})
    query = weights["query"].reshape(1, 1, WIDTH).clone().requires_grad_()
    ours = {name: values[None, None].clone().requires_grad_() for name, values in weights.items()}
    frames = torch.randn(4, 9, WIDTH)
    frame_mask = torch.arange(9) < torch.tensor([[9], [4], [1], [6]])
    got = attention_pooling(ours, frames[None], frame_mask[None])[0, 0]
    wanted = norm(expected(query.expand(4, -1, -1), frames, frames, key_padding_mask=~frame_mask)[0][:, 0])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    uniform = norm(expected(0 * query.expand(4, -1, -1), frames, frames, key_padding_mask=~frame_mask)[0][:, 0])
    assert (wanted - uniform).abs().max() > 0.1  # control: the query looks somewhere
    probes = torch.randn(4, WIDTH)
    (got * probes).sum().backward()
    (wanted * probes).sum().backward()
    torch.testing.assert_close(ours["query"].grad.reshape(1, 1, WIDTH), query.grad, rtol=1e-4, atol=1e-4)
    for name, grad in (("key", expected.in_proj_weight.grad[6:12]), ("value", expected.in_proj_weight.grad[12:])):
        torch.testing.assert_close(ours[f"{name}.weight"].grad.reshape(WIDTH, WIDTH), grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_batch_mates_and_padding_do_not_change_a_clip(pooling):
    clips = make_clips(is_multi_label=False, dtype=torch.float32)
    weights = first_weights(pooling, WIDTH, NUM_CLASSES, RECIPE, torch.Generator().manual_seed(2))
    weights = {name: torch.randn_like(values)[None, None] for name, values in weights.items()}
    together, frame_mask = clips.batch(torch.tensor([[3, 12, 22, 1]]))  # 1, 8, 5 and 2 frames
    assert together.shape == (1, 4, 8, WIDTH)
    assert frame_mask.sum(-1).tolist() == [[1, 8, 5, 2]]
    logits = probe_logits(pooling, weights, together, frame_mask)
    for place, row in enumerate((3, 12, 22, 1)):
        alone = probe_logits(pooling, weights, *clips.batch(torch.tensor([[row]])))
        torch.testing.assert_close(logits[:, :, place], alone[:, :, 0], rtol=0, atol=2e-6)
    poisoned = together.masked_fill(~frame_mask.unsqueeze(-1), 1e3)
    torch.testing.assert_close(probe_logits(pooling, weights, poisoned, frame_mask), logits, rtol=0, atol=2e-6)
    unmasked = probe_logits(pooling, weights, together, torch.ones_like(frame_mask))
    assert (unmasked - logits).abs().amax(-1)[0, 0, [0, 2, 3]].min() > 1e-3  # control


def test_half_precision_clips_are_computed_in_float32():
    clips = make_clips(is_multi_label=False, dtype=torch.float32)
    half = ProbeClips(clips.frames.half(), clips.starts, clips.lengths, clips.targets)
    frames, _ = half.batch(torch.tensor([[0, 2]]))
    assert frames.dtype == torch.float32
    torch.testing.assert_close(frames[0, 1], clips.frames[7:14].half().float(), rtol=0, atol=0)
    sweep = train_sweep(
        "attention", half, torch.arange(15)[None], torch.arange(15, 23)[None],
        num_classes=NUM_CLASSES, seeds=[0], recipe=RECIPE,
    )  # fmt: skip
    assert sweep.weights["query"].dtype == torch.float32


def test_losses_are_those_of_torch_clip_by_clip():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 4, 2, 2], [1, 1, 0, 3], [4, 3, 2, 1]])
    expected = nn.functional.cross_entropy(logits[1, 2], targets[2], reduction="none")
    torch.testing.assert_close(clip_losses(logits, targets)[1, 2], expected)
    hot = nn.functional.one_hot(targets, 5).float()
    hot[..., 0] = 1
    expected = -(hot * logits.sigmoid().log() + (1 - hot) * (-logits).sigmoid().log()).mean(-1)
    torch.testing.assert_close(clip_losses(logits, hot), expected)


def test_scores_are_accuracy_and_the_map_of_classes_that_occur():
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 1.0, 5.0], [1.0, 2.0, 0.0], [0.5, 0.1, 0.2]])
    assert probe_score(logits, np.array([0, 2, 0, 1])) == {"score": 0.5, "chance": 1 / 3, "n_classes_scored": 3}
    hot = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 1]])
    found = probe_score(logits, hot)
    expected = average_precision_score(hot[:, [0, 2]], logits[:, [0, 2]], average="macro")
    assert found == pytest.approx({"score": expected, "chance": (2 / 4 + 3 / 4) / 2, "n_classes_scored": 2})
    with pytest.raises(ValueError, match=r"no positive in any of its 3 classes\. Check that the label names"):
        probe_score(logits, 0 * hot)


def test_the_best_learning_rate_has_the_best_score_then_the_smallest_loss_then_comes_first():
    scores = np.array([[0.5, 0.7, 0.6], [0.9, 0.7, 0.6], [0.8, 0.7, 0.6]])
    losses = np.array([[0.1, 0.4, 0.2], [0.9, 0.3, 0.2], [0.1, 0.5, 0.2]])
    weights = {"query": torch.arange(18.0).view(3, 3, 2)}
    sweep = Sweep(weights, scores, losses, np.ones((3, 3), dtype=int))
    assert sweep.best_rates() == [1, 1, 0]
    assert sweep.best_weights()["query"].tolist() == [[[6.0, 7.0], [8.0, 9.0], [4.0, 5.0]]]


@pytest.mark.parametrize(("width", "num_heads"), [(512, 8), (200, 8), (12, 6), (15, 5), (21, 7), (11, 1), (7, 7)])
def test_the_number_of_heads_divides_the_width(width, num_heads):
    assert ProbeRecipe().num_heads(width) == num_heads
    weights = first_weights("attention", width, 2, ProbeRecipe(), torch.Generator().manual_seed(0))
    assert weights["query"].shape == (num_heads, width // num_heads)
