"""Training samples as one endless stream: every sample has a place in it, and its seed from that place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset, Sampler

from .random_state import seeded


class SeededIndex(int):
    """The index of a sample, with the seed of its augmentation.

    Args:
        index: Of the dataset.
        seed: See :func:`~mmseg_alignzeg.engine.random_state.seeded`.
    """

    seed: tuple[int, ...]

    def __new__(cls, index: int, seed: tuple[int, ...]) -> SeededIndex:
        """An int is made here, not in ``__init__``."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:  # type: ignore[override]
        """What a worker process makes its copy of."""
        return int(self), self.seed


class SampleStream(Sampler[SeededIndex]):
    """The indices of a sampler without end, from any place on.

    With several processes, each has its own share of one stream; place k of process r of n is place k·n + r of all.

    Args:
        dataset: What the sampler draws from.
        sampler: Config of a sampler, such as ``dict(type='InfiniteSampler')``. One that ends is begun again, with
            ``set_epoch(1)`` and so on.
        seed: Of the sampler and of the samples; None draws one, the same in all processes.

    Attributes:
        start: So many indices of this process are left out; counts from the next ``iter()``.

    Raises:
        ValueError: If the dataset is empty.
    """

    def __init__(self, dataset: Any, sampler: Mapping[str, Any], seed: int | None = None) -> None:
        if len(dataset) == 0:  # a sampler without end would look for an index for ever
            raise ValueError(f'The training data ({type(dataset).__name__}) has no image: check its paths and lists.')
        self.dataset = dataset
        self.sampler = sampler
        self.seed = sync_random_seed() if seed is None else seed
        self.start = 0

    def __iter__(self) -> Iterator[SeededIndex]:
        """Begin the sampler anew, at ``start``."""
        sampler = DATA_SAMPLERS.build(dict(self.sampler), default_args={'dataset': self.dataset, 'seed': self.seed})
        rank, world_size = get_dist_info()
        places = count(self.start * world_size + rank, world_size)
        indices = islice(_endless(sampler), self.start, None)
        return (SeededIndex(index, (self.seed, place)) for index, place in zip(indices, places, strict=False))

    def __len__(self) -> int:
        """Samples of the dataset, as MMEngine's InfiniteSampler says it."""
        return len(self.dataset)


def _endless(sampler: Iterable[int]) -> Iterator[int]:
    for epoch in count():
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)
        yield from sampler


class SeededDataset(Dataset):
    """A dataset whose samples depend on their :class:`SeededIndex` alone, in whichever process they are made.

    Transforms draw from the global generators of Python, NumPy and torch, and a dataset draws another image for a
    dropped one. A worker process would draw from its own, so that the number of workers changed the images. An
    ordinary index is passed on as it is, and so is every other attribute of the dataset.

    Args:
        dataset: A dataset or its config.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset

    def __getitem__(self, index: int) -> Any:
        """The sample; draws nothing from the random numbers of the process."""
        if not isinstance(index, SeededIndex):
            return self._dataset[index]
        with seeded(*index.seed):
            return self._dataset[int(index)]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):  # copying and unpickling ask before there is a dataset
            raise AttributeError(f'{type(self).__name__} has no attribute {name!r}')
        return getattr(self._dataset, name)
