"""Skip steps with a non-finite loss or gradient."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ..transfer import to_host
from ..vocabulary import abridged
from .unwrapped import unwrapped_model

SHOWN = 16  # images in a message


@HOOKS.register_module()
class FiniteGuardHook(Hook):
    """Skip a step with a non-finite loss or gradient, and end the training after several of them in a row.

    A single such step would turn all weights into NaN. The hook removes the gradients of the step: the weights and the
    moments of AdamW do not change, and no weight decay is applied. (Running statistics of a batch norm, which AlignZeg
    does not have, would already have changed in the forward pass.) A warning names the loss term and the images. All
    ranks decide together, with one small ``all_reduce`` per step.

    It waits for the device once per step, and with the outcome copies the loss terms that MMEngine logs: MMEngine alone
    would wait for each of them.

    A ``GradScaler`` (``AmpOptimWrapper``) skips a step itself if the gradient overflows. Such a step counts here only
    if the loss is not finite, or if the scale is below 1 and cannot be the cause.

    Args:
        patience: Number of skipped steps in a row that end the training.

    Raises:
        ValueError: If ``patience`` is below 1.
    """

    priority = 'HIGHEST'  # ends the training before another hook saves or logs

    def __init__(self, patience: int = 5) -> None:
        if patience < 1:
            raise ValueError(f'patience={patience} must be at least 1.')
        self.patience = patience
        self.skipped = 0  # number of steps skipped so far
        self._in_row = 0

    def before_train(self, runner: Runner) -> None:
        """Register hooks on the model's losses and on the optimizer."""
        self._runner = runner
        self._losses: list[dict[str, Tensor]] = []  # per batch of the step
        self._images: list[str] = []
        self._on_host: dict[str, Tensor] = {}  # the terms of the last batch, once the step is judged
        self._handles = [
            unwrapped_model(runner).register_forward_hook(self._listen, with_kwargs=True),
            runner.optim_wrapper.optimizer.register_step_pre_hook(self._before_step),
        ]

    def after_train(self, runner: Runner) -> None:
        """Remove the hooks, and log the number of skipped steps."""
        for handle in self._handles:
            handle.remove()
        if self.skipped:
            runner.logger.warning(f'FiniteGuardHook skipped {self.skipped} step(s) of this run, see the log above.')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Check a step skipped by a ``GradScaler``, for which the optimizer was not called; pass on logged losses."""
        if self._losses and runner.optim_wrapper.should_update():
            self._judge(torch.full_like(self._terms()[0], float('nan') if self._scale() < 1 else 0.0))
        on_host, self._on_host = self._on_host, {}
        if outputs and on_host:
            outputs.update({name: loss for name, loss in on_host.items() if name in outputs})
            if 'loss' in outputs and 'loss' not in on_host:
                outputs['loss'] = sum(on_host.values())  # as in `parse_losses`

    def _listen(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """Store the loss terms until the optimizer step, of several batches if gradients are accumulated."""
        if isinstance(output, dict):
            self._losses.append({name: _mean(loss) for name, loss in output.items() if 'loss' in name})
            samples = kwargs.get('data_samples') or ()
            self._images += [sample.metainfo.get('img_path', 'an image without a path') for sample in samples]

    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> None:
        gradients = [
            param.grad for group in optimizer.param_groups for param in group['params'] if param.grad is not None
        ]
        norm = get_total_norm(gradients)
        # A fused optimizer is called even if its GradScaler has found an overflow, and then skips the step itself.
        fused = getattr(optimizer, '_step_supports_amp_scaling', False) and self._scale() >= 1
        if fused and not norm.isfinite() and all(loss.isfinite() for loss in self._terms()):
            return
        if self._judge(norm):
            optimizer.zero_grad(set_to_none=True)  # parameters without gradient are not updated

    def _judge(self, gradient: Tensor) -> bool:
        """Return whether the step is bad on any rank; count and report it.

        Args:
            gradient: Norm of the gradient.

        Raises:
            FloatingPointError: On all ranks, if the last ``patience`` steps were bad.
        """
        terms = [loss.to(gradient.device) for loss in self._terms()]
        values = torch.stack([gradient.float(), *terms])
        bad = 1 - values.isfinite().all().float()
        all_reduce(bad, 'max')
        bad, _, *terms = to_host(torch.cat([bad[None], values]))[0]
        remaining = iter(terms)
        self._losses = [{name: next(remaining) for name in losses} for losses in self._losses]
        self._on_host = self._losses[-1] if self._losses else {}
        if not bad.numpy():
            self._in_row = 0
            self._forget()
            return False
        self.skipped += 1
        self._in_row += 1
        message = f'Step {self._runner.iter + 1} was skipped: {self._fault()}.'
        self._forget()
        if self._in_row >= self.patience:
            raise FloatingPointError(
                f'{message} This is skipped step {self._in_row} in a row: the training ends. The weights of the last '
                'checkpoint are finite: check the images, lower the learning rate, or train without mixed precision.'
            )
        self._runner.logger.warning(message)
        return True

    def _fault(self) -> str:
        """Describe non-finite terms with the images of their rank; if there are none, all images."""
        values = {
            name: loss.item() for losses in self._losses for name, loss in losses.items() if not loss.isfinite().all()
        }
        ranks = all_gather_object((values, self._images))
        named = [
            f'{", ".join(f"{name} is {value}" for name, value in values.items())} (images: {abridged(images, SHOWN)})'
            for values, images in ranks
            if values
        ]
        images = [path for _, images in ranks for path in images]
        return '; '.join(named) or f'its losses are finite, its gradient is not (images: {abridged(images, SHOWN)})'

    def _terms(self) -> list[Tensor]:
        return [loss for losses in self._losses for loss in losses.values()]

    def _scale(self) -> float:
        """Return the scale of the ``GradScaler``; 0 without one, or if it is disabled as for bfloat16."""
        scaler = getattr(self._runner.optim_wrapper, 'loss_scaler', None)
        return 0.0 if scaler is None or not scaler.is_enabled() else scaler.get_scale()

    def _forget(self) -> None:
        self._losses, self._images = [], []


def _mean(loss: Tensor | list[Tensor]) -> Tensor:
    """Return a loss term as a scalar without gradient; MMEngine sums the items of a list."""
    parts = loss if isinstance(loss, list) else [loss]
    return torch.stack([part.detach().float().mean() for part in parts]).sum()
