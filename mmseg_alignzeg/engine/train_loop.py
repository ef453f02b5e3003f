"""A training loop that goes on exactly where it was stopped, at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmseg.registry import LOOPS
from torch import nn

from .sample_stream import SampleStream, SeededDataset

# What the message hub of a checkpoint remembers; the second counts the samples of all processes.
_SEED, _USED, _VALIDATED = 'data_seed', 'used_samples', 'last_validation'


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's IterBasedTrainLoop, whose data depend on nothing but the seed and the iteration.

    The order of the data is that of the configured sampler. MMEngine's loop loads and drops every batch that was
    trained before a stop; this one begins at the right place of the sampler. MMEngine's augmentation depends on the
    number of workers; here each sample has its own seed. A run that is resumed with another batch size or number of
    processes goes on behind the last sample that was used. Together with ``RandomStateHook``, a resumed run equals the
    uninterrupted one. A validation that was due at the checkpoint is made on resuming, because the checkpoint was
    written before it.

    Args:
        runner: The runner.
        dataloader: Config of the training data; ``sampler`` is a config too.
        *args: See IterBasedTrainLoop.
        **kwargs: See IterBasedTrainLoop.

    Raises:
        TypeError: If ``dataloader`` or its sampler is an object.
    """

    def __init__(self, runner: Any, dataloader: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        if not isinstance(dataloader, Mapping) or not isinstance(dataloader.get('sampler'), Mapping):
            raise TypeError(
                'ResumableTrainLoop needs `train_dataloader` and its `sampler` as configs (dicts), to begin them '
                "anywhere: for a data loader of one's own, set `train_cfg=dict(type='IterBasedTrainLoop', …)`."
            )
        dataset, sampler = dataloader['dataset'], dataloader['sampler']
        seeded = {
            'dataset': {'type': SeededDataset, 'dataset': dataset},
            'sampler': {'type': SampleStream, 'sampler': sampler},
        }
        super().__init__(runner, {**dataloader, **seeded}, *args, **kwargs)

    def run(self) -> nn.Module:
        """Train to the last iteration, from the first or from where a checkpoint was written."""
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


def _count(value: Any, default: int) -> int:
    """A count out of a checkpoint, or the default if it has none."""
    return value if type(value) is int and value >= 0 else default
