"""A training loop that resumes exactly, without loading used batches again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmseg.registry import LOOPS
from torch import nn

from .sample_stream import SampleStream, SeededDataset

# Entries of a checkpoint's message hub; the second counts the samples of all processes.
_SEED, _USED, _VALIDATED = 'data_seed', 'used_samples', 'last_validation'


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's IterBasedTrainLoop with data that depend only on the seed and the iteration.

    The order of the data is that of the configured sampler. On resuming, MMEngine's loop loads and discards every batch
    that was already trained; this loop starts the sampler at the right position. MMEngine's augmentation depends on the
    number of workers; here, each sample has its own seed. A run resumed with another batch size or number of processes
    continues after the last used sample. With ``RandomStateHook``, a resumed run equals the uninterrupted one. A
    validation due at the checkpoint is run on resuming, because the checkpoint was written before it.

    Args:
        runner: The runner.
        dataloader: Config of the training data; ``sampler`` must be a config too.
        *args: See IterBasedTrainLoop.
        **kwargs: See IterBasedTrainLoop.

    Raises:
        TypeError: If ``dataloader`` or its sampler is an object.
    """

    def __init__(self, runner: Any, dataloader: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        if not isinstance(dataloader, Mapping) or not isinstance(dataloader.get('sampler'), Mapping):
            raise TypeError(
                'ResumableTrainLoop needs `train_dataloader` and its `sampler` as configs (dicts), to start them at '
                "any position: for your own data loader, set `train_cfg=dict(type='IterBasedTrainLoop', …)`."
            )
        dataset, sampler = dataloader['dataset'], dataloader['sampler']
        seeded = {
            'dataset': {'type': SeededDataset, 'dataset': dataset},
            'sampler': {'type': SampleStream, 'sampler': sampler},
        }
        # Without a GPU, torch ignores `pin_memory` with a warning.
        pinned = {'pin_memory': bool(dataloader.get('pin_memory')) and torch.cuda.is_available()}
        super().__init__(runner, {**dataloader, **seeded, **pinned}, *args, **kwargs)
        _start(self.dataloader_iterator)

    def run(self) -> nn.Module:
        """Train to the last iteration, starting at the first one or at that of the loaded checkpoint."""
        hub = self.runner.message_hub
        batches = self.dataloader.batch_sampler
        stream: SampleStream = batches.sampler
        batch = batches.batch_size * get_world_size()
        self.runner.call_hook('before_train')
        if 0 < self._iter < self._max_iters:
            seed = hub.runtime_info.get(_SEED)
            if type(seed) is int and 0 <= seed < 2**32:
                stream.seed = seed
            stream.start = _count(hub.runtime_info.get(_USED), self._iter * batch) // get_world_size()
            self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
            _start(self.dataloader_iterator)
        used = stream.start * get_world_size()
        hub.update_info(_SEED, stream.seed)
        self.runner.call_hook('before_train_epoch')
        if self._iter > 0:
            self._decide_current_val_interval()
            if hub.runtime_info.get(_VALIDATED) != self._iter:
                self._validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            used += batch
            hub.update_info(_USED, used)  # before the iteration, which may write a checkpoint
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            self._validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validate_if_due(self) -> None:
        if self.runner.val_loop is None or self._iter < self.val_begin:
            return
        if self._iter % self.val_interval == 0 or self._iter == self._max_iters:
            self.runner.message_hub.update_info(_VALIDATED, self._iter)
            self.runner.val_loop.run()


def _start(batches: _InfiniteDataloaderIterator) -> None:
    """Start the workers now, which draws a random number.

    The MMEngine of the OneDL forks starts them with the first batch, after the random state has been restored.
    """
    if batches._iterator is None:
        batches._iterator = iter(batches._dataloader)


def _count(value: Any, default: int) -> int:
    """Return a count from a checkpoint, or the default if it is not valid."""
    return value if type(value) is int and value >= 0 else default
