"""A training loop that goes on exactly where it was stopped, at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmseg.registry import LOOPS
from torch import nn

from .sample_stream import SampleStream, SeededDataset

_SEED, _VALIDATED = 'data_seed', 'last_validation'  # what the message hub of a checkpoint remembers


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's IterBasedTrainLoop, whose data depend on nothing but the seed and the iteration.

    The order of the data is that of the configured sampler. MMEngine's loop loads and drops every batch that was
    trained before a stop; this one begins at the right place of the sampler. MMEngine's augmentation depends on the
    number of workers; here each sample has its own seed. Together with ``RandomStateHook``, a resumed run equals the
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
        self.runner.call_hook('before_train')
        if 0 < self._iter < self._max_iters:
            seed = hub.runtime_info.get(_SEED)
            if type(seed) is int and 0 <= seed < 2**32:
                stream.seed = seed
            stream.start = self._iter * batches.batch_size
            self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
        hub.update_info(_SEED, stream.seed)
        self.runner.call_hook('before_train_epoch')
        if self._iter > 0:
            self._decide_current_val_interval()
            if hub.runtime_info.get(_VALIDATED) != self._iter:
                self._validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
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
