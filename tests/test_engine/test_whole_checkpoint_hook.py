"""Checkpoints are whole at any moment, and a training goes on from the newest whole one."""

import errno
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from toy_training import Numbers, Rising, files_of, in_child, toy_runner

from mmseg_alignzeg.engine import read_checkpoint, work_dir_lock
from mmseg_alignzeg.engine.latest_checkpoint import find_latest
from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models.random_clip import label_scores
from mmseg_alignzeg.together import _sendable, together

STEPS = 4


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A folder in which a training ended that kept its last two checkpoints."""
    folder = tmp_path_factory.mktemp('finished') / 'run'
    runner = toy_runner(folder, STEPS, check_point=dict(max_keep_ckpts=2))
    runner.train()
    return folder, [param.detach().clone() for param in runner.model.parameters()]


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / 'run')
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/iter_4.pth'))
    return tmp_path / 'run'


def die_at(call):
    """End this process without any clean-up at the ``call``-th time that it writes, flushes, renames or deletes."""
    count = 0

    def wrapped(name, real):
        def replacement(*args, **kwargs):
            nonlocal count
            count += 1
            if count == call:
                if name == 'write_bytes':
                    real(args[0], args[1][: len(args[1]) // 2])
                os._exit(9)
            return real(*args, **kwargs)

        return replacement

    for name in ('fsync', 'replace', 'remove', 'unlink'):
        setattr(os, name, wrapped(name, getattr(os, name)))
    for name in ('write_bytes', 'write_text'):
        setattr(Path, name, wrapped(name, getattr(Path, name)))


@pytest.mark.attack('checkpoints: killed between any two steps of saving')
def test_killed_at_any_step_of_saving(tmp_path, record_property):
    """With one checkpoint kept there is a whole one at any time, and the run that goes on ends as if never killed."""
    toy_runner(tmp_path / 'whole', 2).train()
    expected = read_checkpoint(tmp_path / 'whole/iter_2.pth')['state_dict']
    tries, ended, once_saved = 0, None, False
    while ended != 0:
        tries += 1
        work_dir = tmp_path / f'killed_{tries}'

        def train(work_dir=work_dir, call=tries):
            runner = toy_runner(work_dir, 2)
            die_at(call)
            runner.train()

        ended = in_child(train)
        assert ended in (0, 9)
        left = [path for path in work_dir.glob('*.pth') if read_checkpoint(path)]  # raises for a torn one
        assert left or not once_saved
        once_saved = bool(left)
        resumed = toy_runner(work_dir, 2, resume=True)
        resumed.train()
        assert resumed.iter == 2
        assert [name for name in files_of(work_dir) if name.endswith('.part')] == []
        assert Path((work_dir / 'last_checkpoint').read_text()) == work_dir / 'iter_2.pth'
        after = read_checkpoint(work_dir / 'iter_2.pth')['state_dict']
        assert all(torch.equal(after[name], value) for name, value in expected.items())
    record_property('tries', tries)
    assert tries > 16  # twice a checkpoint and a pointer, each of them written, flushed, renamed, and flushed again


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[content.find(torch.load(path)['state_dict']['linear.weight'].numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)


def zeros_at_the_end(path):
    content = path.read_bytes()
    path.write_bytes(content[:-4096] + bytes(4096))


def emptied(path):
    path.write_bytes(b'')


@pytest.mark.attack('checkpoints: damaged file or pointer')
@pytest.mark.parametrize(
    ('damage', 'pointer'),
    [(damage, 'whole') for damage in (half, flipped, zeros_at_the_end, emptied, Path.unlink)]
    + [(half, pointer) for pointer in ('empty', 'torn', 'dangling', 'binary', 'missing')],
)
def test_resumes_from_the_newest_whole_one(folder, damage, pointer, finished):
    text = str(folder / 'iter_4.pth')
    written = dict(whole=text, empty='', torn=text[:-7], dangling='nowhere/iter_9.pth', binary='\0\x80\n')
    if pointer == 'missing':
        (folder / 'last_checkpoint').unlink()
    else:
        (folder / 'last_checkpoint').write_text(written[pointer])
    damage(folder / 'iter_4.pth')
    runner = toy_runner(folder, STEPS, resume=True)
    resumed_from = []
    runner.resume = lambda path: (resumed_from.append(Path(path)), Runner.resume(runner, path))
    runner.train()
    assert resumed_from == [folder / 'iter_3.pth']
    for param, expected in zip(runner.model.parameters(), finished[1], strict=True):
        assert torch.equal(param, expected)
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_4.pth')
    read_checkpoint(folder / 'iter_4.pth')


def test_a_damaged_file_is_named_in_a_warning(folder, monkeypatch):
    half(folder / 'iter_4.pth')
    runner = toy_runner(folder, STEPS, resume=True)
    lines = []
    monkeypatch.setattr(runner.logger, 'warning', lambda line, *args: lines.append(line))
    runner.train()
    assert 'iter_4.pth' in lines[0] and 'iter_3.pth' in lines[1]


def rewrite(path, **meta):
    content = torch.load(path, weights_only=True)
    content['meta'].update(meta)
    torch.save(content, path)


@pytest.mark.attack('checkpoints: killed before the pointer is written')
@pytest.mark.parametrize(
    ('time', 'expected'), [('20990101_000000', 'iter_4.pth'), ('20200101_000000', 'iter_3.pth'), (None, 'iter_3.pth')]
)
def test_a_newer_checkpoint_than_the_pointer_names(folder, time, expected):
    """One that was saved later is followed; one of an earlier, longer run is not."""
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_3.pth'))
    rewrite(folder / 'iter_4.pth', time=time)
    latest = find_latest(folder / 'last_checkpoint', folder, 'iter_{}.pth')
    assert latest.path == folder / expected and latest.named == (expected == 'iter_3.pth')
    assert len(latest.passed_over) == (expected == 'iter_3.pth')


def test_a_pointer_to_another_folder_or_name(folder, tmp_path):
    pointer = folder / 'last_checkpoint'
    (tmp_path / 'disk').mkdir()
    for name, expected in (('iter_9.pth', tmp_path / 'disk/iter_9.pth'), ('mine.pth', folder / 'iter_4.pth')):
        shutil.copy(folder / 'iter_4.pth', tmp_path / 'disk' / name)
        pointer.write_text(str(tmp_path / 'disk' / name))
        assert find_latest(pointer, folder, 'iter_{}.pth').path == expected
    for path in folder.glob('*.pth'):
        path.unlink()
    assert find_latest(pointer, folder, 'iter_{}.pth').path == tmp_path / 'disk/mine.pth'


@pytest.mark.attack('checkpoints: weights that are not finite')
def test_a_checkpoint_of_nan_is_passed_over(folder):
    content = torch.load(folder / 'iter_4.pth', weights_only=True)
    content['state_dict']['linear.bias'][3] = torch.nan
    torch.save(content, folder / 'iter_4.pth')
    runner = toy_runner(folder, STEPS, resume=True)
    runner.train()
    assert runner.iter == STEPS
    assert read_checkpoint(folder / 'iter_4.pth')['state_dict']['linear.bias'].isfinite().all()


@pytest.mark.attack('checkpoints: a disk that cannot be read at the moment')
@pytest.mark.parametrize(
    'error',
    [PermissionError(errno.EACCES, 'x'), OSError(errno.ESTALE, 'x'), MemoryError('x'), torch.OutOfMemoryError('x')],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_fault_of_a_file_stops_the_search(folder, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, 'load', fail)
    before = files_of(folder)
    with pytest.raises(type(error)) as caught:
        toy_runner(folder, STEPS, resume=True).train()
    assert 'delete' not in str(caught.value)
    assert [name for name in files_of(folder) if 'pth' in name] == [name for name in before if 'pth' in name]
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_4.pth')


@pytest.mark.attack('ranks: one cannot save')
@pytest.mark.parametrize('fault', ['weights', 'disk', 'best'])
def test_an_error_of_the_rank_that_saves_ends_all(tmp_path, fault):
    """The others would wait for the one that failed."""

    def train():
        rank = int(os.fork() == 0)
        torch.distributed.init_process_group(
            'gloo', f'file://{tmp_path}/store', rank=rank, world_size=2, timeout=timedelta(seconds=60)
        )
        arguments = dict(save_best='mIoU', interval=2) if fault == 'best' else {}
        runner = toy_runner(tmp_path / 'run', 2, validate=fault == 'best', check_point=arguments)
        if fault != 'disk':
            runner.model.register_buffer('count', torch.tensor(torch.nan))
        elif rank == 0:
            runner.save_checkpoint = lambda *_, **__: open('/no/disk')
        start = time.monotonic()
        try:
            runner.train()
        except (ValueError, FileNotFoundError):
            assert time.monotonic() - start < 30
            (tmp_path / f'failed_{rank}').touch()
        if rank == 1:
            os._exit(0)
        os.wait()

    assert in_child(train) == 0
    assert (tmp_path / 'failed_0').exists() and (tmp_path / 'failed_1').exists()


def test_errors_that_cannot_be_sent_are_told_all_the_same():
    class LocalError(Exception):
        pass

    assert type(_sendable(LocalError('why'))) is RuntimeError and 'why' in str(_sendable(LocalError('why')))
    assert type(_sendable(KeyError('x'))) is KeyError
    with pytest.raises(LocalError):
        together(lambda: (_ for _ in ()).throw(LocalError()))


def test_a_folder_that_was_moved_is_resumed(folder):
    folder.rename(folder.with_name('moved'))
    runner = toy_runner(folder.with_name('moved'), STEPS + 1, resume=True)
    runner.train()
    assert runner.iter == STEPS + 1 and not folder.exists()


def test_only_damaged_files_end_the_run_and_an_empty_folder_begins_it(folder, tmp_path):
    for path in folder.glob('iter_*.pth'):
        half(path)
    with pytest.raises(ValueError, match=r'only damaged ones \(2\)') as caught:
        toy_runner(folder, STEPS, resume=True).train()
    assert '\n' not in str(caught.value)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/last_checkpoint').write_text('iter_2.pth')
    runner = toy_runner(tmp_path / 'empty', STEPS, resume=True)
    runner.train()
    assert runner.iter == STEPS


def test_a_finished_folder_can_be_run_again(folder, finished):
    before = (folder / 'iter_4.pth').read_bytes()
    runner = toy_runner(folder, STEPS, resume=True)
    runner.train()
    assert runner.iter == STEPS and (folder / 'iter_4.pth').read_bytes() == before

    def again():
        runner = toy_runner(folder, STEPS)
        die_at(2)  # before the first checkpoint of the second run is on the disk
        runner.train()

    assert in_child(again) == 9
    runner = toy_runner(folder, STEPS, resume=True)
    runner.train()
    for param, expected in zip(runner.model.parameters(), finished[1], strict=True):
        assert torch.equal(param, expected)


def test_the_best_checkpoint_is_replaced_last(tmp_path, monkeypatch):
    """What was deleted was replaced before, and the new one was flushed; ``last_checkpoint`` is never dangling."""
    done = []

    def watched(name, real):
        def replacement(path, *others, **kwargs):
            real(path, *others, **kwargs)
            if str(path).startswith(str(tmp_path)):
                done.append((name, Path(others[0] if others else path).name))
                pointer = tmp_path / 'run/last_checkpoint'
                assert not pointer.exists() or Path(pointer.read_text()).is_file()

        return replacement

    for name in ('replace', 'remove'):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    toy_runner(tmp_path / 'run', 2, validate=True, check_point=dict(save_best='mIoU')).train()
    assert done == [
        ('replace', 'iter_1.pth'),
        ('replace', 'last_checkpoint'),
        ('replace', 'best_mIoU_iter_1.pth'),
        ('replace', 'iter_1.pth'),  # which now names the best
        ('replace', 'last_checkpoint'),
        ('replace', 'iter_2.pth'),
        ('replace', 'last_checkpoint'),
        ('remove', 'iter_1.pth'),
        ('replace', 'best_mIoU_iter_2.pth'),
        ('replace', 'iter_2.pth'),
        ('replace', 'last_checkpoint'),
        ('remove', 'best_mIoU_iter_1.pth'),
    ]
    resumed = toy_runner(tmp_path / 'run', 3, validate=True, check_point=dict(save_best='mIoU'), resume=True)
    resumed.val_evaluator.metrics[0].score = 2
    resumed.train()
    assert [name for name in files_of(tmp_path / 'run') if '.pth' in name] == ['best_mIoU_iter_3.pth', 'iter_3.pth']


def test_the_best_of_a_random_clip_is_found(tmp_path):
    runner = toy_runner(tmp_path, 1, validate=True, check_point=dict(save_best='mIoU'))
    label_scores(runner.val_evaluator.metrics)
    runner.train()
    assert (tmp_path / 'best_mIoU_iter_1.pth').is_file()


def test_checkpoints_in_another_folder(tmp_path):
    elsewhere = dict(out_dir=str(tmp_path / 'disk'))
    toy_runner(tmp_path / 'run', 2, check_point=elsewhere).train()
    (tmp_path / 'run/last_checkpoint').write_text('')
    runner = toy_runner(tmp_path / 'run', 3, check_point=elsewhere, resume=True)
    runner.train()
    assert files_of(tmp_path / 'disk/run') == ['iter_3.pth'] and runner.iter == 3


@pytest.mark.attack('checkpoints: names files to delete')
def test_a_checkpoint_cannot_have_other_files_deleted(folder, tmp_path):
    (tmp_path / 'best_of_me.txt').write_text('mine')
    (tmp_path / 'mine.pth').write_text('mine')
    content = torch.load(folder / 'iter_4.pth', weights_only=True)
    info = content['message_hub']['runtime_info']
    info.update(best_ckpt=str(tmp_path / 'best_of_me.txt'), best_score=0.5, keep_ckpt_ids=['/../../mine', 4])
    for key in ('best_ckpt', 'best_score', 'keep_ckpt_ids'):
        content['message_hub']['resumed_keys'][key] = True
    torch.save(content, folder / 'iter_4.pth')
    (folder / 'iter_').mkdir()
    arguments = dict(save_best='mIoU', max_keep_ckpts=1)
    runner = toy_runner(folder, STEPS + 2, validate=True, check_point=arguments, resume=True)
    runner.train()
    assert runner.iter == STEPS + 2
    assert (tmp_path / 'best_of_me.txt').read_text() == (tmp_path / 'mine.pth').read_text() == 'mine'


def test_the_config_of_a_running_training_is_not_replaced(tmp_path):
    runner = toy_runner(tmp_path / 'run', 2)
    object.__setattr__(runner.cfg, '_filename', 'toy.py')  # as of Config.fromfile
    (tmp_path / 'run/toy.py').write_text("of = 'another training'")
    runner.train()
    assert 'another' not in (tmp_path / 'run/toy.py').read_text()
    assert (tmp_path / 'run/toy.py').read_text() == runner.cfg.pretty_text


# ---------------------------------------------------------------- one training in a folder


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in ``run``, with a child of its own, as data loaders are."""
    ready, written = os.pipe()
    child = os.fork()
    if child == 0:
        work_dir_lock.acquire(tmp_path / 'run')
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(20)
            os._exit(0)
        os.write(written, str(grandchild).encode())
        time.sleep(60)
        os._exit(0)
    grandchild = int(os.read(ready, 20))
    yield child
    for pid in (child, grandchild):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for end in (ready, written):
        os.close(end)


@pytest.mark.attack('work_dir: two trainings in one')
def test_a_second_training_is_refused_until_the_first_is_killed(tmp_path, holder):
    toy_runner(tmp_path / 'trained', 2).train()
    for name in ('iter_2.pth', 'last_checkpoint'):
        shutil.copy(tmp_path / 'trained' / name, tmp_path / 'run' / name)
    with pytest.raises(
        ValueError, match=rf'run is in use: process {holder} on \S+, since \d+-.* is training'
    ) as caught:
        toy_runner(tmp_path / 'run', 4, resume=True).train()
    assert '\n' not in str(caught.value)
    assert [name for name in files_of(tmp_path / 'run') if name.endswith('.pth')] == ['iter_2.pth']
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    runner = toy_runner(tmp_path / 'run', 4, resume=True)  # although the child of the killed one lives on
    runner.train()
    assert runner.iter == 4


def test_testing_beside_a_training_is_allowed(tmp_path, holder):
    loader = dict(dataset=Numbers(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    tested = dict(test_dataloader=loader, test_cfg=dict(type='TestLoop'), test_evaluator=Evaluator(Rising()))
    assert toy_runner(tmp_path / 'run', **tested).test() == {'mIoU': 1}


def test_one_process_may_train_again_after_a_failure(tmp_path, holder, monkeypatch):
    runner = toy_runner(tmp_path / 'other', 2)
    monkeypatch.setattr(type(runner.model), 'train_step', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.train()
    monkeypatch.undo()
    toy_runner(tmp_path / 'other', 2).train()
    assert in_child(lambda: work_dir_lock.acquire(tmp_path / 'other')) == 0  # given back at the end


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / 'file'
    target.write_text('old')

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'), whole_file(target) as part:
        part.write_text('new')
    assert target.read_text() == 'old' and files_of(tmp_path) == ['file']


@pytest.mark.attack('files: two processes of one number')
def test_two_containers_may_write_one_file(tmp_path):
    """Process numbers are the same in two of them."""
    with whole_file(tmp_path / 'x.pth') as one, whole_file(tmp_path / 'x.pth') as two:
        one.write_text('one')
        two.write_text('two')
    assert one != two and {one.suffix, two.suffix} == {'.part'}
    assert (tmp_path / 'x.pth').read_text() == 'one' and files_of(tmp_path) == ['x.pth']
