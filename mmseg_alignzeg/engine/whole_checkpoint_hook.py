"""Checkpoints that survive the end of the process, the disk and the neighbour at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from ..files import whole_file, write_text
from ..together import together
from . import work_dir_lock
from .latest_checkpoint import POINTER, find_latest

BACKEND = dict(backend='whole_file')


class WholeFileBackend(LocalBackend):
    """MMEngine's storage on local disks, with files that are there whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes beside the file, flush them to the disk, and rename."""
        with whole_file(Path(filepath)) as part:
            part.write_bytes(obj)


register_backend(BACKEND['backend'], WholeFileBackend, force=True)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` for trainings that may be killed at any moment.

    A checkpoint is written beside its name, flushed to the disk and renamed; then ``last_checkpoint`` is; then what it
    replaces is deleted: with ``max_keep_ckpts=1`` too there is a whole one at any time. A training with ``resume=True``
    passes over damaged files, with a warning, and goes on from the newest whole one, whatever ``last_checkpoint`` says.
    A work_dir in which another process trains is refused.

    Args:
        **kwargs: Of ``CheckpointHook``.

    Raises:
        ValueError: On ``before_run``: the work_dir is in use, or all of its checkpoints are damaged.
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
        """Take the work_dir, and see to it that MMEngine finds a whole checkpoint if it is to resume."""
        if isinstance(runner._train_loop, BaseLoop):  # built, so this is a training
            together(lambda: self._prepare(runner) if is_main_process() else None)

    def after_run(self, runner: Runner) -> None:
        """Give the work_dir back."""
        if is_main_process():
            work_dir_lock.release(runner.work_dir)

    def before_train(self, runner: Runner) -> None:
        """As MMEngine's, but a resumed checkpoint can name no file to be deleted outside of the folder."""
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
            folder = Path(str(self.out_dir), folder.name)  # as before_train makes it
        for part in [*folder.glob('*.pth.*.part'), *Path(runner.work_dir).glob(f'{POINTER}.*.part')]:
            part.unlink()  # of a killed training: nobody else writes here
        if runner._resume and runner._load_from is None:
            self._point_to_latest(runner, folder)

    def _point_to_latest(self, runner: Runner, folder: Path) -> None:
        """Make ``last_checkpoint`` name the newest whole checkpoint."""
        pointer = Path(runner.work_dir, POINTER)
        latest = find_latest(pointer, folder, self.filename_tmpl)
        for sentence in latest.passed_over:
            runner.logger.warning(sentence)
        if latest.path is None and latest.passed_over:
            raise ValueError(
                f'{folder} has no whole checkpoint to resume from, only damaged ones ({len(latest.passed_over)}): '
                'delete them to start from the beginning.'
            )
        if latest.path is None:
            pointer.unlink(missing_ok=True)
        elif not latest.named:
            runner.logger.warning(f'{pointer} does not name the newest whole checkpoint: resuming from {latest.path}.')
            write_text(pointer, str(latest.path))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """As MMEngine's, in another order: checkpoint, pointer, and then the deletion of what they replace."""
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
        """As MMEngine's, but the former best is deleted when the new one is there."""
        backend = self.file_backend
        self.file_backend = later = _RemoveLater(backend)
        try:
            super()._save_best_checkpoint(_SaveTogether(runner), metrics)
        finally:
            self.file_backend = backend
        self._delete(later.paths)

    def _keep_config(self, runner: Runner) -> None:
        """Write the config in the work_dir again if another training, which was refused, has replaced it."""
        if runner.cfg.filename is None:
            return
        path, text = Path(runner.work_dir, Path(runner.cfg.filename).name), runner.message_hub.get_info('cfg')
        if path.suffix == '.py' and path.is_file() and path.read_text(encoding='utf-8', errors='replace') != text:
            runner.logger.warning(f'{path} was replaced during training: writing it again.')
            write_text(path, text)

    def _join(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _own(self, path: Any) -> str | None:
        """A best checkpoint of this folder, whatever folder it was said to be in."""
        return self._join(Path(path).name) if isinstance(path, str) and Path(path).name.startswith('best_') else None

    def _delete(self, paths: list[str]) -> None:
        """Delete files, or folders as DeepSpeed writes them, unless they are the ones just written."""
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        for path in set(paths) - {self.last_ckpt, *best}:
            if self.file_backend.isdir(path):
                self.file_backend.rmtree(path)
            elif self.file_backend.isfile(path):
                self.file_backend.remove(path)


class _RemoveLater:
    """A storage that keeps a list of what it is asked to remove, and does all else."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.paths.append(path)

    rmtree = remove


class _SaveTogether:
    """A runner whose ranks all raise the error of the one that saves."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        together(lambda: self._runner.save_checkpoint(*args, **kwargs))
