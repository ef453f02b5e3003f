"""The order of training samples, and the random numbers of each."""

import copy
import pickle
import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from mmseg_alignzeg.engine import sample_stream
from mmseg_alignzeg.engine.random_state import random_state, seeded, set_random_state
from mmseg_alignzeg.engine.sample_stream import SampleStream, SeededDataset, SeededIndex


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), *torch.randn(3).tolist()


class Drawing(Dataset):
    """Samples that draw from every generator; the odd ones draw nothing."""

    metainfo = dict(classes=('cat',))

    def __len__(self):
        return 7

    def __getitem__(self, index):
        assert type(index) is int
        return [float(index), *(draw() if index % 2 == 0 else [0.0] * 7)]


class Dropping(BaseDataset):
    """Four of five images are dropped, so that others are drawn in their place."""

    def load_data_list(self):
        return [dict(number=number) for number in range(40)]


def drop(results):
    return results if results['number'] % 5 == 0 else None


def stream(length=7, start=0, seed=3, **sampler):
    made = SampleStream(range(length), {'type': 'InfiniteSampler', **sampler}, seed)
    made.start = start
    return made


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('world_size', [1, 3])
def test_the_order_is_that_of_mmengine_from_any_place(monkeypatch, shuffle, world_size):
    seeds = {}
    for rank in range(world_size):
        for module in ('mmengine.dataset.sampler', sample_stream.__name__):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, world_size))
        expected = list(islice(InfiniteSampler(range(7), shuffle, seed=3), 40))
        whole = list(islice(stream(shuffle=shuffle), 40))
        assert whole == expected
        for start in (0, 5, 13):
            part = list(islice(stream(start=start, shuffle=shuffle), 27))
            assert part == whole[start : start + 27]
            assert [index.seed for index in part] == [index.seed for index in whole[start : start + 27]]
        seeds[rank] = {index.seed for index in whole}
    assert len(set.union(*seeds.values())) == 40 * world_size  # no two samples of any process share one


def test_a_stream_begins_anew_and_one_that_ends_is_shuffled_again():
    made = stream()
    assert list(islice(made, 9)) == list(islice(made, 9)) and len(made) == 7
    endless = list(islice(stream(type='DefaultSampler', shuffle=True), 21))
    epochs = [endless[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]


def test_no_image_at_all_is_an_error_and_no_endless_search():
    with pytest.raises(ValueError, match='has no image'):
        stream(0)


def test_an_index_reaches_a_worker_whole():
    index = pickle.loads(pickle.dumps(SeededIndex(5, (3, 8))))
    assert index == 5 and index.seed == (3, 8)


def batches(workers, dataset, start=0, number=6):
    loader = DataLoader(
        SeededDataset(dataset), 2, sampler=stream(len(dataset), 2 * start), num_workers=workers, collate_fn=list
    )
    return list(islice(loader, number))


def test_samples_do_not_depend_on_the_number_of_workers():
    whole = batches(0, Drawing())
    assert batches(1, Drawing()) == batches(2, Drawing()) == whole
    assert batches(2, Drawing(), start=2, number=4) == batches(0, Drawing(), start=2, number=4) == whole[2:]
    drawn = [tuple(sample[1:]) for batch in whole for sample in batch if sample[0] % 2 == 0]
    assert len({value for sample in drawn for value in sample}) == len(drawn) * 7  # all of them differ


def test_replacements_of_dropped_images_do_not_depend_on_it_either():
    dataset = Dropping(pipeline=[drop], max_refetch=100)
    whole = [[sample['number'] for sample in batch] for batch in batches(0, dataset)]
    assert whole == [[sample['number'] for sample in batch] for batch in batches(2, dataset)]
    assert len({number for batch in whole for number in batch}) > 3


def test_samples_leave_the_random_numbers_of_training_alone():
    dataset = SeededDataset(Drawing())
    before = random_state()
    expected = draw()
    set_random_state(before)
    sample = dataset[SeededIndex(2, (0, 0))]
    assert draw() == expected
    assert dataset[SeededIndex(2, (0, 0))] == sample != dataset[SeededIndex(2, (0, 1))]
    assert dataset[2] != dataset[2]  # an ordinary index is none of the stream's business


def test_the_dataset_behind_is_seen():
    dataset = SeededDataset(Drawing())
    assert dataset.metainfo == Drawing.metainfo and len(dataset) == 7 and not hasattr(dataset, 'full_init')
    for copied in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert copied.metainfo == Drawing.metainfo


def test_seeds_are_not_those_of_one_generator_twice():
    with seeded(1, 2):
        numbers = draw()
    with seeded(1, 3):
        others = draw()
    assert len({*numbers, *others}) == 14


def test_the_state_goes_through_a_safe_file(tmp_path):
    random.gauss(0, 1), np.random.randn(), torch.randn(1)  # each keeps a second number for the next call
    torch.save(random_state(), tmp_path / 'state.pth')
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert draw() == expected


@pytest.mark.attack('checkpoint: a forged random state')
@pytest.mark.parametrize(
    'change',
    [
        lambda state: state.clear(),
        lambda state: state['numpy'].update(position=10**6),  # NumPy would read beyond its table
        lambda state: state['numpy'].update(position=-1),
        lambda state: state['numpy'].update(words=torch.zeros(3)),
        lambda state: state['numpy'].update(words=torch.zeros(624)),  # a normal number would take for ever
        lambda state: state['numpy'].update(words=torch.full((624,), -(2**40))),
        lambda state: state['numpy'].update(words=torch.full((624,), float('nan'))),
        lambda state: state['python'].update(position=625),
        lambda state: state['python'].update(words=torch.zeros(624) - 1),
        lambda state: state['python'].update(words=None),
        lambda state: state.update(torch=torch.zeros(5056, dtype=torch.uint8)),
        lambda state: state.update(torch=torch.zeros(9)),
        lambda state: state.update(cuda=[torch.zeros(16, dtype=torch.uint8)] * 99),
        lambda state: state.update(cuda=[7]),
    ],
)
def test_a_state_that_is_none_is_refused_in_a_line(change):
    state = random_state()
    change(state)
    with pytest.raises(ValueError, match=r'\A[^\n]+\Z'):
        set_random_state(state)
    draw()
