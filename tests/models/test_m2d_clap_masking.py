# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which tokens M2D hides: how many, where, how they lie, and that hidden tokens never enter the encoder."""

import itertools
from collections import Counter

import pytest
import torch
from tiny import CLIP_FRAMES, tiny_batch, tiny_m2d_clap_config

from hf_audiolang import M2dClapForPreTraining
from hf_audiolang.models.layers_masking import span_positions, structured_positions, uniform_positions

COLUMNS = (38, 1, 7, 62, 20)
BANDS = 5


def token_mask(columns=COLUMNS, bands=BANDS):
    """(B, bands * widest), frequency-major: the padding of a clip stands at the end of each of its rows."""
    real = torch.arange(max(columns)) < torch.tensor(columns).unsqueeze(1)
    return real.repeat(1, bands)


def draw(style, ratio, seed=0, mask=None, **numbers):
    torch.manual_seed(seed)
    mask = token_mask() if mask is None else mask
    if style == "random":
        return uniform_positions(mask, ratio)
    if style == "span":
        return span_positions(mask, ratio, BANDS, numbers.get("span", 4))
    return structured_positions(mask, ratio, BANDS, style)


def grids(hidden, columns=COLUMNS):
    """Per clip the (bands, columns) grid of its real tokens."""
    return [row.view(BANDS, -1)[:, :number] for row, number in zip(hidden, columns, strict=True)]


STYLES = ["random", "span", "marked", "unmarked"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.7])
def test_padding_is_never_hidden_and_draws_follow_the_seed(style, ratio):
    hidden = draw(style, ratio)
    assert hidden.dtype == torch.bool
    assert hidden.shape == token_mask().shape
    assert not (hidden & ~token_mask()).any()
    assert torch.equal(hidden, draw(style, ratio))
    assert not torch.equal(hidden, draw(style, ratio, seed=1))
    assert token_mask().sum() > hidden.sum() > 0


# random


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9])
def test_number_of_visible_tokens_is_that_of_the_published_code(ratio):
    for number in range(11, 400, 3):
        hidden = uniform_positions(torch.ones(1, number, dtype=torch.bool), ratio)
        assert int((~hidden).sum()) == int(number * (1 - ratio)), number


def test_visible_numbers_of_six_seconds():
    six_seconds = torch.ones(2, 190, dtype=torch.bool)
    assert (~uniform_positions(six_seconds, 0.7)).sum(1).tolist() == [57, 57]
    assert (~uniform_positions(six_seconds, 0.6)).sum(1).tolist() == [76, 76]
    ten_seconds = torch.ones(1, 310, dtype=torch.bool)
    assert (~uniform_positions(ten_seconds, 0.3)).sum(1).tolist() == [217]


def test_every_clip_of_a_ragged_batch_keeps_its_own_share():
    visible = token_mask() & ~draw("random", 0.7)
    assert visible.sum(1).tolist() == [57, 1, 10, 93, 30]


def test_random_positions_are_uniform_and_drawn_apart():
    torch.manual_seed(0)
    mask = token_mask((7, 3))
    share = torch.stack([uniform_positions(mask, 0.6) for _ in range(3000)]).float().mean(0)
    assert share[0].sub(21 / 35).abs().max() < 0.04  # four standard deviations of 3000 draws
    assert share[1][mask[1]].sub(9 / 15).abs().max() < 0.04
    hidden = uniform_positions(torch.ones(2, 40, dtype=torch.bool), 0.5)
    assert not torch.equal(hidden[0], hidden[1])


# spans


@pytest.mark.parametrize("span", [1, 3, 10])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.7])
def test_spans_hide_whole_columns_in_runs(span, ratio):
    for seed in range(20):
        for grid in grids(draw("span", ratio, seed, span=span)):
            columns = grid[0].tolist()
            assert all(row.tolist() == columns for row in grid)
            assert sum(columns) == int(len(columns) * ratio)
            runs = [len(list(run)) for is_hidden, run in itertools.groupby(columns) if is_hidden]
            assert all(run >= span for run in runs[:-1])  # only the last one is shortened


def test_spans_start_anywhere_and_are_cut_from_the_end():
    hidden = torch.cat([draw("span", 0.3, seed, torch.ones(40, 50, dtype=torch.bool), span=4) for seed in range(20)])
    columns = hidden.view(-1, BANDS, 10)[:, 0]  # 3 of 10 columns: one run of 4 cut to 3, or the clip's end and more
    share = columns.float().mean(0)
    assert share.sum().item() == pytest.approx(3)
    assert share.min() > 0.1
    patterns = Counter("".join("#" if one else "." for one in row) for row in columns.tolist())
    assert patterns["###......."] > 60  # start 0
    assert patterns[".###......"] > 60
    assert patterns["......####"] == 0
    assert patterns[".......###"] > 60  # starts 7: the run leaves the clip
    assert all("##" in pattern or pattern.endswith("#") for pattern in patterns)


def test_one_column_spans_scatter():
    grid = draw("span", 0.5, mask=torch.ones(1, 5 * 40, dtype=torch.bool), span=1).view(5, 40)
    runs = [len(list(run)) for is_hidden, run in itertools.groupby(grid[0].tolist()) if is_hidden]
    assert len(runs) > 5


# structured


def numbers_of_lines(grid):
    """Rows and columns hidden throughout."""
    return int(grid.all(1).sum()), int(grid.all(0).sum())


@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_structured_marks_follow_the_rule(ratio):
    """NF rows of a number shared by the batch, NT columns that fill up to the ratio; marks are their union."""
    found, columns = Counter(), (38, 2, 7, 62, 20)
    for seed in range(400):
        hidden = draw("unmarked", ratio, seed, token_mask(columns))
        per_clip = [(grid, *numbers_of_lines(grid)) for grid in grids(hidden, columns)]
        rows = per_clip[0][1]
        found[rows] += 1
        for grid, num_rows, num_columns in per_clip:
            wanted = int(grid.shape[1] * max(ratio + 0.5 / grid.shape[1] - rows / BANDS, 0.0))
            assert (num_rows, num_columns) == (rows, wanted)
            assert int(grid.sum()) == rows * grid.shape[1] + wanted * (BANDS - rows)
    limit = BANDS * (ratio + 1 / BANDS)  # NF is the whole part of a uniform draw below this
    for rows in range(BANDS):
        share = max(min(rows + 1, limit) - rows, 0) / limit
        assert found[rows] / 400 == pytest.approx(share, abs=0.11)  # four standard deviations
    assert max(found) <= BANDS - 1


def test_never_all_rows_are_marked():
    for seed in range(60):
        rows, _ = numbers_of_lines(grids(draw("unmarked", 0.95, seed, token_mask((20,))), (20,))[0])
        assert rows <= BANDS - 1


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_keeping_the_marked_follows_from_the_marks(ratio):
    """The same draws: as many are hidden as are marked; marked tokens stay first, then unmarked in grid order."""
    for seed in range(40):
        by_unmarked, by_marked = draw("unmarked", ratio, seed), draw("marked", ratio, seed)
        for marked, hidden in zip(grids(by_unmarked), grids(by_marked), strict=True):
            marked, hidden = marked.flatten().tolist(), hidden.flatten().tolist()
            in_order = [i for i, mark in enumerate(marked) if mark] + [i for i, mark in enumerate(marked) if not mark]
            kept = in_order[: len(marked) - sum(marked)]
            assert [i for i, is_hidden in enumerate(hidden) if not is_hidden] == sorted(kept)


def test_structured_masks_by_hand():
    """Two of 5 x 4 tokens' rows and columns; the numbers of the marks are known for every draw of the rows."""
    seen = set()
    for seed in range(60):
        (marks,) = grids(draw("unmarked", 0.3, seed, token_mask((4,))), (4,))
        rows, columns = numbers_of_lines(marks)
        # ratio 0.3, 4 columns: 0.3 + 0.125 = 0.425, less 0.2 for each marked row
        assert (rows, columns) in {(0, 1), (1, 0), (2, 0)}
        seen.add((rows, columns))
        (hidden,) = grids(draw("marked", 0.3, seed, token_mask((4,))), (4,))
        assert int(hidden.sum()) == int(marks.sum()) == {(0, 1): 5, (1, 0): 4, (2, 0): 8}[rows, columns]
        # more stay than are marked: all marked ones and the first unmarked ones in the grid
        unmarked = (~marks).flatten().nonzero().flatten()
        assert hidden.flatten().nonzero().flatten().tolist() == unmarked[-int(marks.sum()) :].tolist()
    assert len(seen) == 3


def test_equal_clips_keep_equal_numbers():
    mask = token_mask((62,) * 6)
    for style in ("marked", "unmarked"):
        for seed in range(10):
            hidden = draw(style, 0.3, seed, mask)
            assert len(set(hidden.sum(1).tolist())) == 1
            assert seed == 0 or hidden.sum() < mask.sum()
        assert len({tuple(row) for row in hidden.tolist()}) > 1  # but which ones differs


@pytest.mark.parametrize(("ratio", "kept", "marked_among_kept"), [(0.5, 0.51, 0.90), (0.3, 0.68, 0.47)])
def test_shares_of_the_published_code(ratio, kept, marked_among_kept):
    mask = token_mask((62,))
    stay, marked = [], []
    for seed in range(500):
        visible, marks = ~draw("marked", ratio, seed, mask), draw("unmarked", ratio, seed, mask)
        stay.append(visible.float().mean().item())
        marked.append((visible & marks).sum().item() / visible.sum().item())
    assert sum(stay) / len(stay) == pytest.approx(kept, abs=0.012)
    assert sum(marked) / len(marked) == pytest.approx(marked_among_kept, abs=0.02)


# in the model


def make_model(**numbers):
    torch.manual_seed(0)
    return M2dClapForPreTraining(tiny_m2d_clap_config(**numbers)).train()


def make_batch(config):
    return {name: value for name, value in tiny_batch(config, seed=1).items() if name != "labels"}


def sequence_lengths(model, batch, seed=3):
    """Tokens that enter encoder, teacher and predictor, class tokens included."""
    seen = {}
    layers = {"encoder": model.m2d_clap.audio_model.layers[0]}
    if model.has_teacher:
        layers |= {"teacher": model.teacher_layers[0], "predictor": model.predictor.layers[0]}

    def count(name):
        return lambda module, given: seen.update({name: len(given[0])})

    hooks = [layer.register_forward_pre_hook(count(name)) for name, layer in layers.items()]
    torch.manual_seed(seed)
    model(**batch)
    for hook in hooks:
        hook.remove()
    return seen


def columns_of_clips():
    return [-(-frames // 16) for frames in CLIP_FRAMES]


def test_only_visible_tokens_enter_the_encoder():
    model = make_model()
    numbers = [BANDS * columns for columns in columns_of_clips()]
    visible = [int(number * (1 - 0.7)) for number in numbers]
    assert sequence_lengths(model, make_batch(model.config)) == {
        "encoder": sum(visible) + 4,
        "teacher": sum(numbers) - sum(visible) + 4,
        "predictor": sum(numbers) + 4,
    }


def test_every_style_reaches_the_encoder():
    hidden_columns = [int(columns * 0.7) for columns in columns_of_clips()]
    model = make_model(mask_style="span", mask_span_columns=2, masked_weight=0.0)
    wanted = BANDS * (sum(columns_of_clips()) - sum(hidden_columns)) + 4
    assert sequence_lengths(model, make_batch(model.config)) == {"encoder": wanted}
    for keep in ("marked", "unmarked"):
        model = make_model(mask_style="structured", masking_ratio=0.3, masked_weight=0.0, structured_keep=keep)
        batch = make_batch(model.config)
        found = {sequence_lengths(model, batch, seed)["encoder"] for seed in range(30)}
        wanted = set()
        for rows in (0, 1, 2):
            marks = 0
            for columns in columns_of_clips():
                lines = int(columns * max(0.3 + 0.5 / columns - rows / BANDS, 0.0))
                marks += rows * columns + lines * (BANDS - rows)
            wanted.add(BANDS * sum(columns_of_clips()) - marks + 4)
        assert found == wanted
    model = make_model(masking_ratio=0.0, masked_weight=0.0)
    assert sequence_lengths(model, make_batch(model.config)) == {"encoder": BANDS * sum(columns_of_clips()) + 4}


def test_the_two_structured_forms_differ_in_the_model():
    embeds = []
    for keep in ("marked", "unmarked"):
        model = make_model(mask_style="structured", masking_ratio=0.5, masked_weight=0.0, structured_keep=keep)
        torch.manual_seed(5)
        with torch.no_grad():
            embeds.append(model(**make_batch(model.config)).audio_embeds)
    assert (embeds[0] - embeds[1]).abs().max() > 1e-3


def poisoned(batch, hidden):
    """NaN in every hidden patch."""
    features = batch["input_features"].clone()
    for row, number in zip(*hidden.nonzero(as_tuple=True), strict=True):
        band, column = divmod(int(number), 7)
        features[row, 16 * column : 16 * column + 16, 16 * band : 16 * band + 16] = float("nan")
    assert features.isnan().any()
    return {**batch, "input_features": features}


@pytest.mark.parametrize("masked_weight", [0.0, 1.0])
def test_what_is_hidden_changes_nothing_of_the_online_part(masked_weight):
    model = make_model(masked_weight=masked_weight).eval()
    batch = make_batch(model.config)
    batch["masked_positions"] = hidden = draw("random", 0.6, mask=token_mask(columns_of_clips()))
    clean, blind = model(**batch), model(**poisoned(batch, hidden))
    torch.testing.assert_close(blind.audio_embeds, clean.audio_embeds)
    torch.testing.assert_close(blind.loss_terms["contrastive"], clean.loss_terms["contrastive"])
    blind.loss_terms["contrastive"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if masked_weight:
        assert blind.loss_terms["masked"].isnan()  # the teacher does see it
    control = model(**poisoned(batch, ~hidden & token_mask(columns_of_clips())))
    assert control.audio_embeds.isnan().all()


def test_draws_of_the_model_follow_the_seed():
    for style in ("random", "span", "structured"):
        model = make_model(mask_style=style, masked_weight=0.0, masking_ratio=0.5)
        batch, losses = make_batch(model.config), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            losses.append(model(**batch).loss.item())
        assert losses[0] == losses[1] != losses[2]
