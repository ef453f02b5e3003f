"""Monitor whether every component has an effect: in training, and for PBC in tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor, nn

from ..models import AlignZeg
from .unwrapped import unwrapped_model

SATURATED = 5.0  # |M| beyond which σ(M) is within 0.7 % of 0 or 1
RARE = 0.01  # shares of corrected proposals below this, or above 1 - this, cause a warning


def part_of(name: str) -> str:
    """Return the component of a parameter: ``decode_head.queries``, ``fusion``, ``image_encoder.vit``, and so on."""
    return '.'.join(name.removesuffix('.weight').removesuffix('.bias').split('.')[:2])


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all elements of several tensors."""
    return math.sqrt(sum(float(tensor.detach().float().square().sum()) for tensor in tensors))


@HOOKS.register_module()
class HealthHook(Hook):
    """Log every ``interval`` iterations how each component of AlignZeg trains; other iterations have no overhead.

    Per component: the norm of the gradient after clipping, and the size of the update relative to the weights. In
    addition: the share of mask logits beyond ±5; the mean rotation of the background prototypes since the start of the
    run; the share of pairs in L_vir that have the same class and therefore no effect; and for φ_bc, the share of
    hidden units that are zero for all proposals, and of proposals predicted as unseen (I > 0.5). The numbers go to the
    log and to the visualizer, as ``health/…``.

    At the end of a test with PBC, the share of corrected proposals is logged, with a warning if it is close to 0 or 1.

    Args:
        interval: Number of iterations.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    priority = 'BELOW_NORMAL'  # after VocabularyHook, and before hooks that run φ_bc again for pictures ('LOW')

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval} must be at least 1.')
        self.interval = interval
        self._handles: list[Any] = []
        self._numbers: dict[str, float] = {}

    # ------------------------------------------------------------------ training

    def before_train(self, runner: Runner) -> None:
        """Store the initial prototypes."""
        model = unwrapped_model(runner)
        self._model = model if isinstance(model, AlignZeg) else None
        if self._model is not None:
            self._start = self._model.semantic_head.backgrounds.detach().clone()

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Register hooks in every ``interval``-th iteration."""
        if self._model is None or (runner.iter + 1) % self.interval:
            return
        self._numbers = {}
        optimizer = runner.optim_wrapper.optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            self._model.decode_head.register_forward_hook(self._saturation),
        ]
        if self._model.class_indicator is not None:
            self._handles.append(self._model.class_indicator.layers[1].register_forward_hook(self._dead_units))
            self._handles.append(self._model.class_indicator.register_forward_hook(self._balance))

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the collected numbers."""
        if not self._handles:
            return
        self._remove_handles()
        model = self._model
        assert model is not None
        cosines = (self._start * model.semantic_head.backgrounds.detach()).sum(dim=-1).clamp(-1, 1)
        self._numbers['prototypes_turned_rad'] = float(cosines.arccos().mean())
        expansion = model.criterion.feature_expansion
        if expansion is not None and expansion.pairs.numel():
            first, second = expansion.pairs
            self._numbers['same_class_mixed'] = float((first == second).float().mean())
        step = runner.iter + 1
        words = ', '.join(f'{name} {value:.2g}' for name, value in self._numbers.items())
        runner.logger.info(f'Health at iteration {step}: {words}')
        runner.visualizer.add_scalars({f'health/{name}': value for name, value in self._numbers.items()}, step=step)

    def _trained(self) -> dict[str, list[nn.Parameter]]:
        assert self._model is not None
        parts = defaultdict(list)
        for name, param in self._model.named_parameters():
            if param.requires_grad:
                parts[part_of(name)].append(param)
        return parts

    def _before_step(self, *_: Any) -> None:
        parts = self._trained()
        for part, params in parts.items():
            self._numbers[f'{part}.gradient'] = norm(p.grad for p in params if p.grad is not None)
        self._before = {part: [p.detach().clone() for p in params] for part, params in parts.items()}

    def _after_step(self, *_: Any) -> None:
        for part, params in self._trained().items():
            before = self._before[part]
            change = norm(new.detach() - old for new, old in zip(params, before, strict=True))
            self._numbers[f'{part}.update'] = change / max(norm(before), 1e-12)
        del self._before

    def _saturation(self, module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
        self._numbers['saturated_masks'] = float((output[0].detach().abs() > SATURATED).float().mean())

    def _dead_units(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._numbers['phi_bc_dead'] = float((output.detach().flatten(0, -2).amax(dim=0) <= 0).float().mean())

    def _balance(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._numbers['phi_bc_unseen'] = float((output.detach() > 0).float().mean())

    # ------------------------------------------------------------------ test

    def before_test(self, runner: Runner) -> None:
        """Prepare to count, if PBC is enabled."""
        self._counted: nn.Module | None = None
        self._corrected: Tensor | int = 0
        self._proposals = 0
        model = unwrapped_model(runner)
        correction = model.question.bias_correction if isinstance(model, AlignZeg) else None
        if correction is not None and model.class_indicator is not None:
            self._gamma = correction.gamma
            self._counted = model.class_indicator

    def before_test_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Begin to count."""
        if self._counted is not None:
            self._handles = [self._counted.register_forward_hook(self._count)]

    def after_test_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop counting."""
        self._remove_handles()

    def after_test(self, runner: Runner) -> None:
        """Log the share of corrected proposals."""
        counts = torch.tensor([float(self._corrected), float(self._proposals)])
        all_reduce(counts)  # each rank has tested its own images
        if not counts[1]:
            return
        share = float(counts[0] / counts[1])
        line = f'PBC corrected {share:.1%} of the proposals (I > γ = {self._gamma}).'
        if RARE <= share <= 1 - RARE:
            runner.logger.info(line)
        else:
            which = 'almost no' if share < RARE else 'almost every'
            runner.logger.warning(
                f'{line} φ_bc predicts {which} proposal as unseen: it is hardly trained, or γ does not fit it; compare '
                'with model.bias_correction=None.'
            )

    def _count(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._corrected += (torch.sigmoid(output.detach()) > self._gamma).sum()
        self._proposals += output.numel()

    def _remove_handles(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
