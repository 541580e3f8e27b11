import numpy as np
import pytest
import torch
from data_helpers import RATE, TinyProcessor

from hf_audiolang.data.collate import BadExampleError, Collator
from hf_audiolang.data.records import Record, TooManyBadExamples
from hf_audiolang.data.sampling import BadExampleLog, EpochSampler, TrainDataset, build_train_loader

NUMBERS = ("audio_seconds", "skipped")


def _records(count, bad=(), empty=()):
    """Clips of different length and level whose first letter of the caption tells their number."""
    generator = np.random.default_rng(3)
    records = []
    for number in range(count):
        wave = generator.uniform(-0.5, 0.5, 1600 + 160 * (number % 37)).astype(np.float32)
        if number in bad:
            wave[:] = np.nan  # whatever the crop
        captions = ("",) if number in empty else (chr(200 + number) + "a", chr(200 + number) + "b")
        records.append(Record(f"clip {number}", wave, sampling_rate=RATE, captions=captions))
    return records


def _collator(**options):
    return Collator(TinyProcessor(), **{"max_seconds": 0.15, "max_text_tokens": 5, "seed": 4, **options})


def _numbers(batch):
    """Which clips are in a batch, told by the caption."""
    return [int(number) - 200 for number in batch["input_ids"][:, 1]]


def _same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        if key in NUMBERS:
            assert first[key] == second[key]
        else:
            assert torch.equal(first[key], second[key]), key


def test_an_epoch_visits_every_clip_once_and_the_next_in_another_order():
    sampler = EpochSampler(47, 5, seed=0)
    assert sampler.steps_per_epoch == 9
    epochs = [[sampler.batch_indices(epoch, step) for step in range(9)] for epoch in range(3)]
    for batches in epochs:
        seen = [index for batch in batches for index in batch]
        assert len(seen) == len(set(seen)) == 45
        assert set(seen) <= set(range(47))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[1] == [EpochSampler(47, 5, seed=0).batch_indices(1, step) for step in range(9)]
    assert epochs[0] != [EpochSampler(47, 5, seed=1).batch_indices(0, step) for step in range(9)]
    assert sampler.locate(0) == (0, 0)
    assert sampler.locate(20) == (2, 2)
    with pytest.raises(IndexError, match="`step` 9"):
        sampler.batch_indices(0, 9)


def test_two_processes_see_the_clips_and_seeds_of_one():
    one = EpochSampler(50, 8, seed=7)
    halves = [EpochSampler(50, 4, seed=7, process_index=rank, num_processes=2) for rank in range(2)]
    for epoch, step in ((0, 0), (0, 5), (3, 2)):
        joined = [index for half in halves for index in half.batch_indices(epoch, step)]
        assert joined == one.batch_indices(epoch, step)
        seeds = [half.seed_of(epoch, step, position) for half in halves for position in range(4)]
        assert seeds == [one.seed_of(epoch, step, position) for position in range(8)]


def test_draw_seeds_never_repeat():
    sampler = EpochSampler(50, 8, seed=0)
    places = [(epoch, step, position) for epoch in range(6) for step in range(6) for position in range(8)]
    seeds = {sampler.seed_of(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds.isdisjoint(EpochSampler(50, 8, seed=1).seed_of(*place) for place in places)


def test_spares_are_outside_the_batch_and_different_on_each_process():
    samplers = [EpochSampler(23, 3, seed=2, process_index=rank, num_processes=2) for rank in range(2)]
    for step in range(3):
        batch = {index for sampler in samplers for index in sampler.batch_indices(1, step)}
        spares = [list(sampler.spare_indices(1, step)) for sampler in samplers]
        together = spares[0] + spares[1]
        assert len(together) == len(set(together))
        assert set(together) == set(range(23)) - batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_examples": 7, "batch_size": 4, "num_processes": 2}, "needs 8 examples, got 7. Lower `batch_size`"),
        ({"batch_size": 0}, "`batch_size` 0"),
        ({"process_index": 2, "num_processes": 2}, "`process_index` 2"),
        ({"seed": -1}, "`seed` -1"),
    ],
)
def test_impossible_samplers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EpochSampler(**{"num_examples": 50, "batch_size": 4, "seed": 0, **arguments})


def test_a_resumed_loader_continues_exactly():
    records, sampler = _records(40, bad={3}), EpochSampler(40, 6, seed=5)
    uninterrupted = list(build_train_loader(records, sampler, _collator(), 0, 15))
    assert len(uninterrupted) == 15  # more than two epochs of six steps
    for start in (1, 7, 14):
        resumed = list(build_train_loader(records, EpochSampler(40, 6, seed=5), _collator(), start, 15 - start))
        for batch, expected in zip(resumed, uninterrupted[start:], strict=True):
            _same(batch, expected)
    assert not torch.equal(uninterrupted[0]["input_features"], uninterrupted[6]["input_features"])


def test_a_clip_is_cropped_differently_in_each_epoch():
    dataset = TrainDataset(_records(6), EpochSampler(6, 6, seed=5), _collator(max_seconds=0.05))
    first, second = dataset[0], dataset[1]
    assert sorted(_numbers(first)) == sorted(_numbers(second)) == list(range(6))
    order = [_numbers(second).index(number) for number in _numbers(first)]
    assert not torch.equal(first["input_features"], second["input_features"][order])


def test_loading_leaves_the_global_random_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(build_train_loader(_records(20), EpochSampler(20, 4, seed=5), _collator(), 0, 6))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.multiprocess
def test_workers_give_the_same_batches_in_the_same_order():
    records, sampler = _records(40, bad={3}), EpochSampler(40, 6, seed=5)
    expected = list(build_train_loader(records, sampler, _collator(), 2, 7))
    loader = build_train_loader(records, sampler, _collator(), 2, 7, num_workers=2)
    for batch, other in zip(loader, expected, strict=True):
        _same(batch, other)
    (message,) = loader.bad_examples.messages
    assert message.startswith("`clip 3` holds NaN")


@pytest.mark.multiprocess
def test_a_bad_example_in_a_worker_is_named_under_error():
    loader = build_train_loader(
        _records(20, bad={3}), EpochSampler(20, 10, seed=5), _collator(on_bad_example="error"), 0, 2, num_workers=1
    )
    with pytest.raises(BadExampleError, match="`clip 3`"):
        list(loader)


def test_bad_clips_are_replaced_so_that_batches_stay_full():
    bad, empty = {3, 17}, {30}
    records, sampler = _records(100, bad, empty), EpochSampler(100, 8, seed=5)
    loader = build_train_loader(records, sampler, _collator(), 0, 24)
    for step, batch in enumerate(loader):
        planned = sampler.batch_indices(*sampler.locate(step))
        got = _numbers(batch)
        assert len(set(got)) == 8
        assert not set(got) & (bad | empty)
        assert [number for number in got if number in planned] == [n for n in planned if n not in bad | empty]
        assert len(batch["skipped"]) >= len(set(planned) & (bad | empty))
    assert loader.bad_examples.num_seen >= 24 * 8
    assert len(loader.bad_examples.messages) == 3  # each once, though met in two epochs


def test_under_error_the_first_bad_clip_ends_the_run():
    collator = _collator(on_bad_example="error")
    with pytest.raises(BadExampleError, match="`clip 3`"):
        list(build_train_loader(_records(20, bad={3}), EpochSampler(20, 10, seed=5), collator, 0, 2))


def test_more_than_five_percent_bad_stop_the_run():
    sampler = EpochSampler(100, 10, seed=5)
    five = build_train_loader(_records(100, bad=set(range(5))), sampler, _collator(), 0, 30)
    assert len(list(five)) == 30
    with pytest.raises(TooManyBadExamples, match=r"6 bad examples among 100, more than 5%(.|\n)*`clip "):
        list(build_train_loader(_records(100, bad=set(range(6))), sampler, _collator(), 0, 30))
    with pytest.raises(TooManyBadExamples):  # not a single batch can be filled
        next(iter(build_train_loader(_records(100, bad=set(range(95))), sampler, _collator(), 0, 30)))


def test_a_big_data_set_is_judged_on_what_was_seen():
    log = BadExampleLog(num_examples=1_000_000)
    for number in range(10):
        log.update([f"`{number}`: broken", f"`{number}`: broken"], num_seen=8)
    assert len(log.messages) == 10
    with pytest.raises(TooManyBadExamples, match="11 bad examples among 200"):
        log.update(["`10` has no caption"], num_seen=8)


def test_a_sampler_for_another_data_set_is_refused():
    with pytest.raises(ValueError, match="counts 30 examples but `dataset` has 20"):
        build_train_loader(_records(20), EpochSampler(30, 4, seed=0), _collator(), 0, 1)
