"""Training samples as one endless stream; the position of a sample determines its seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset, Sampler

from .random_state import seeded


class SeededIndex(int):
    """The index of a sample, together with the seed of its augmentation.

    Args:
        index: Index in the dataset.
        seed: See :func:`~mmseg_alignzeg.engine.random_state.seeded`.
    """

    seed: tuple[int, ...]

    def __new__(cls, index: int, seed: tuple[int, ...]) -> SeededIndex:
        """Create the integer; ``int`` is immutable, so this cannot be done in ``__init__``."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:  # type: ignore[override]
        """Return the arguments from which a worker process creates its copy."""
        return int(self), self.seed


class SampleStream(Sampler[SeededIndex]):
    """Endless indices of a sampler, starting at any position.

    Several processes share one stream: position k of process r of n is position k·n + r of the stream.

    Args:
        dataset: Dataset of the sampler.
        sampler: Config of a sampler, such as ``dict(type='InfiniteSampler')``. A finite sampler is restarted, with
            ``set_epoch(1)`` and so on.
        seed: Seed of the sampler and of the samples; None draws one, the same in all processes.

    Attributes:
        start: Number of indices of this process to skip; takes effect with the next ``iter()``.

    Raises:
        ValueError: If the dataset is empty.
    """

    def __init__(self, dataset: Any, sampler: Mapping[str, Any], seed: int | None = None) -> None:
        if len(dataset) == 0:  # an endless sampler would search for an index forever
            raise ValueError(f'The training data ({type(dataset).__name__}) has no image: check its paths and lists.')
        self.dataset = dataset
        self.sampler = sampler
        self.seed = sync_random_seed() if seed is None else seed
        self.start = 0

    def __iter__(self) -> Iterator[SeededIndex]:
        """Restart the sampler at ``start``."""
        sampler = DATA_SAMPLERS.build(dict(self.sampler), default_args={'dataset': self.dataset, 'seed': self.seed})
        rank, world_size = get_dist_info()
        places = count(self.start * world_size + rank, world_size)
        indices = islice(_endless(sampler), self.start, None)
        return (SeededIndex(index, (self.seed, place)) for index, place in zip(indices, places, strict=False))

    def __len__(self) -> int:
        """Return the number of samples of the dataset, as MMEngine's InfiniteSampler does."""
        return len(self.dataset)


def _endless(sampler: Iterable[int]) -> Iterator[int]:
    for epoch in count():
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)
        yield from sampler


class SeededDataset(Dataset):
    """A dataset whose samples depend only on their :class:`SeededIndex`, not on the process that loads them.

    Transforms use the global generators of Python, NumPy and torch, and a dataset chooses a random replacement for a
    dropped image. With the generators of worker processes, the images would depend on the number of workers. Ordinary
    indices are passed on unchanged, as are all other attributes of the dataset.

    Args:
        dataset: A dataset or its config.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset

    def __getitem__(self, index: int) -> Any:
        """Return a sample without using the random numbers of the process."""
        if not isinstance(index, SeededIndex):
            return self._dataset[index]
        with seeded(*index.seed):
            return self._dataset[int(index)]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):  # copying and unpickling request attributes before there is a dataset
            raise AttributeError(f'{type(self).__name__} has no attribute {name!r}')
        return getattr(self._dataset, name)
