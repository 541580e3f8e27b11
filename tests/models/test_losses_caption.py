# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captioning loss against torch's cross-entropy on the whole padded batch, and what is asked of a batch."""

import math

import pytest
import torch

from hf_audiolang.models.losses_caption import caption_loss, caption_task, mixed_caption_task


def make_inputs():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 5, 4, generator=generator)
    embedding = torch.randn(11, 4, generator=generator)
    targets = torch.randint(0, 11, (3, 5), generator=generator)
    lengths = torch.tensor([[5], [2], [3]])
    return states, embedding, targets.masked_fill(torch.arange(5) >= lengths, -100)


def test_value_and_gradient_equal_torch():
    states, embedding, targets = make_inputs()
    results = []
    for is_ours in (True, False):
        leaves = [states.clone().requires_grad_(), embedding.clone().requires_grad_()]
        if is_ours:
            loss = caption_loss(*leaves, targets)
        else:
            logits = leaves[0] @ leaves[1].T
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets)  # ignores -100
        loss.backward()
        results.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_each_token_counts_the_same_not_each_caption():
    states, embedding, targets = make_inputs()
    states[0] = 0.0  # these five targets cost log(11) each
    rest = caption_loss(states[1:], embedding, targets[1:])
    torch.testing.assert_close(caption_loss(states, embedding, targets), (5 * math.log(11) + 5 * rest) / 10)


def test_padding_may_hold_anything():
    states, embedding, targets = make_inputs()
    poisoned = torch.where((targets == -100).unsqueeze(-1), float("nan"), states).requires_grad_()
    loss = caption_loss(poisoned, embedding, targets)
    torch.testing.assert_close(loss, caption_loss(states, embedding, targets))
    loss.backward()
    assert torch.count_nonzero(poisoned.grad[targets == -100]) == 0


def test_batch_without_targets_costs_nothing():
    states, embedding, targets = make_inputs()
    loss = caption_loss(states.requires_grad_(), embedding, torch.full_like(targets, -100))
    assert loss.item() == pytest.approx(0.0)
    loss.backward()


def test_label_smoothing_is_torchs():
    states, embedding, targets = make_inputs()
    logits = (states @ embedding.T).transpose(1, 2)
    for smoothing in (0.0, 0.1, 0.6):
        expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        torch.testing.assert_close(caption_loss(states, embedding, targets, smoothing), expected)


BOS, EOS, PAD, MASK = 1, 2, 0, 3
CAPTIONS = torch.tensor(
    [
        [BOS, 7, 8, 9, EOS],
        [BOS, 6, EOS, -100, -100],
        [BOS, EOS, -100, -100, -100],
        [BOS, 5, 4, EOS, -100],
        [BOS, 9, 9, 9, EOS],
    ]
)


def test_teacher_forcing_shifts_once():
    task = caption_task(CAPTIONS, PAD)
    for row, caption in enumerate(CAPTIONS.tolist()):
        words = [token for token in caption if token not in (BOS, EOS, -100)]
        asked = task.decoder_attention_mask[row]
        assert task.decoder_input_ids[row, asked].tolist() == [BOS, *words]
        assert task.targets[row, asked].tolist() == [*words, EOS]
        assert (task.targets[row, ~asked] == -100).all()
    assert task.is_parallel is None


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.1, 0), (0.3, 2), (0.5, 2), (0.75, 4), (1.0, 5)])
def test_the_rounded_share_of_rows_is_parallel(share, number):
    plain, seen = caption_task(CAPTIONS, PAD), set()
    for seed in range(6):
        torch.manual_seed(seed)
        task = mixed_caption_task(CAPTIONS, PAD, MASK, share, EOS)
        chosen = torch.zeros(5, dtype=torch.bool) if task.is_parallel is None else task.is_parallel
        assert chosen.sum() == number
        seen.add(tuple(chosen.tolist()))
        for row, caption in enumerate(CAPTIONS.tolist()):
            words = [token for token in caption if token not in (BOS, EOS, -100)]
            asked = task.decoder_attention_mask[row]
            if chosen[row]:
                assert task.decoder_input_ids[row, asked].tolist() == [MASK] * len(words)
                assert task.targets[row, asked].tolist() == words  # the end is not asked for
                assert (task.decoder_input_ids[row, ~asked] == PAD).all()
                assert (task.targets[row, ~asked] == -100).all()
            else:
                for name in ("decoder_input_ids", "decoder_attention_mask", "targets"):
                    assert torch.equal(getattr(task, name)[row], getattr(plain, name)[row])
    assert (len(seen) > 1) == (0 < number < 5)  # which rows is drawn
