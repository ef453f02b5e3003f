"""Atomic checkpoints, for trainings that may be killed at any time, and for shared work_dirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from ..files import whole_file, write_text
from ..models.random_clip import PREFIX
from ..together import together
from . import work_dir_lock
from .latest_checkpoint import POINTER, find_latest

BACKEND = dict(backend='whole_file')


class WholeFileBackend(LocalBackend):
    """MMEngine's local storage backend with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a temporary file, flush it to the disk, and rename it."""
        with whole_file(Path(filepath)) as part:
            part.write_bytes(obj)


register_backend(BACKEND['backend'], WholeFileBackend, force=True)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` for trainings that may be killed at any moment.

    A checkpoint is written to a temporary file, flushed to the disk and renamed. Then ``last_checkpoint`` is written,
    and then the replaced checkpoints are deleted. There is always a complete one, also with ``max_keep_ckpts=1``.
    A training with ``resume=True`` skips damaged files with a warning and resumes from the newest complete one,
    whatever ``last_checkpoint`` names. A work_dir in which another process trains is refused.

    Args:
        **kwargs: Arguments of ``CheckpointHook``.

    Raises:
        ValueError: In ``before_run``, if the work_dir is in use or all of its checkpoints are damaged.
    """

    backend_args: dict[str, Any] | None
    file_backend: Any
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.file_client_args is None and self.backend_args is None and '://' not in str(self.out_dir):
            self.backend_args = BACKEND

    def before_run(self, runner: Runner) -> None:
        """Lock the work_dir, and make sure that MMEngine finds a complete checkpoint when resuming."""
        if isinstance(runner._train_loop, BaseLoop):  # it is built, so this is a training
            together(lambda: self._prepare(runner) if is_main_process() else None)

    def after_run(self, runner: Runner) -> None:
        """Unlock the work_dir."""
        if is_main_process():
            work_dir_lock.release(runner.work_dir)

    def before_train(self, runner: Runner) -> None:
        """Run MMEngine's method, but do not let a loaded checkpoint name files outside the folder for deletion."""
        kept = runner.message_hub.get_info('keep_ckpt_ids')
        if kept is not None:
            steps = [step for step in kept if type(step) is int] if isinstance(kept, list) else []
            runner.message_hub.update_info('keep_ckpt_ids', steps)
        super().before_train(runner)
        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        elif self.save_best is not None:
            self.best_ckpt_path_dict = {key: self._own(path) for key, path in self.best_ckpt_path_dict.items()}

    def _prepare(self, runner: Runner) -> None:
        work_dir_lock.acquire(runner.work_dir)
        if self.backend_args is not BACKEND:
            return
        folder = Path(runner.work_dir)
        if self.out_dir not in (None, runner.work_dir):
            folder = Path(str(self.out_dir), folder.name)  # as in before_train
        for part in [*folder.glob('*.pth.*.part'), *Path(runner.work_dir).glob(f'{POINTER}.*.part')]:
            part.unlink()  # left by a killed training: no other process writes here
        if runner._resume and runner._load_from is None:
            self._point_to_latest(runner, folder)

    def _point_to_latest(self, runner: Runner, folder: Path) -> None:
        """Make ``last_checkpoint`` name the newest complete checkpoint."""
        pointer = Path(runner.work_dir, POINTER)
        latest = find_latest(pointer, folder, self.filename_tmpl)
        for sentence in latest.passed_over:
            runner.logger.warning(sentence)
        if latest.path is None and latest.passed_over:
            raise ValueError(
                f'{folder} has no complete checkpoint to resume from, only damaged ones ({len(latest.passed_over)}): '
                'delete them to start from the beginning.'
            )
        if latest.path is None:
            pointer.unlink(missing_ok=True)
        elif not latest.named:
            runner.logger.warning(f'{pointer} does not name the newest checkpoint: resuming from {latest.path}.')
            write_text(pointer, str(latest.path))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Do what MMEngine does in another order: write the checkpoint and the pointer, then delete old files."""
        outdated: list[str] = []
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self._join(self.filename_tmpl.format(self.keep_ckpt_ids.popleft())))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self._join(name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        together(lambda: self._write(runner, name, meta, outdated))

    def _write(self, runner: Runner, name: str, meta: dict[str, Any], outdated: list[str]) -> None:
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        write_text(Path(runner.work_dir, POINTER), self.last_ckpt)
        self._delete(outdated)
        self._keep_config(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Do what MMEngine does, but delete the previous best checkpoint after the new one is written.

        ``save_best='hIoU'`` finds the score of a random CLIP too, which has a prefix.
        """
        metrics = {key.removeprefix(f'{PREFIX}/'): value for key, value in metrics.items()}
        backend = self.file_backend
        self.file_backend = later = _RemoveLater(backend)
        try:
            super()._save_best_checkpoint(_SaveTogether(runner), metrics)
        finally:
            self.file_backend = backend
        self._delete(later.paths)

    def _keep_config(self, runner: Runner) -> None:
        """Write the config to the work_dir again if another training, which was refused, has replaced it."""
        if runner.cfg.filename is None:
            return
        path, text = Path(runner.work_dir, Path(runner.cfg.filename).name), runner.message_hub.get_info('cfg')
        if path.suffix == '.py' and path.is_file() and path.read_text(encoding='utf-8', errors='replace') != text:
            runner.logger.warning(f'{path} was replaced during training and is written again.')
            write_text(path, text)

    def _join(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _own(self, path: Any) -> str | None:
        """Return the path of a best checkpoint in this folder, whatever folder ``path`` names."""
        return self._join(Path(path).name) if isinstance(path, str) and Path(path).name.startswith('best_') else None

    def _delete(self, paths: list[str]) -> None:
        """Delete files, or folders written by DeepSpeed, except those just written."""
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        for path in set(paths) - {self.last_ckpt, *best}:
            if self.file_backend.isdir(path):
                self.file_backend.rmtree(path)
            elif self.file_backend.isfile(path):
                self.file_backend.remove(path)


class _RemoveLater:
    """A storage backend that collects the paths to remove instead of removing them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.paths.append(path)

    rmtree = remove


class _SaveTogether:
    """A runner whose ranks all raise the error of the rank that saves."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        together(lambda: self._runner.save_checkpoint(*args, **kwargs))
