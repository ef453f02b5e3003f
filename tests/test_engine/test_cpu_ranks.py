"""Several processes train, resume and test on a CPU, as one machine and as two; a lost one ends the others."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.dist import init_dist

ROOT = Path(__file__).parents[2]
TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
GLOO = ['--launcher', 'pytorch', '--cfg-options', 'env_cfg.dist_cfg.backend=gloo']
SMALL = [
    'train_cfg.val_interval=1000',
    'train_dataloader.batch_size=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.dataset.length=2',
    'test_dataloader.dataset.length=6',
    'test_dataloader.num_workers=0',
    'default_hooks.logger.interval=1',
]


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def start(command, log, **variables):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo', **variables}
    with open(log, 'w') as output:
        return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=output, stderr=output)


def test_backends_without_a_gpu(monkeypatch):
    monkeypatch.setattr('mmseg_alignzeg.cpu_ranks.get_device', lambda: 'cpu')
    for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=0).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(RuntimeError, match=r"'nccl' needs GPUs.*env_cfg\.dist_cfg\.backend=gloo"):
        init_dist('pytorch', backend='nccl')
    monkeypatch.setenv('MASTER_PORT', str(free_port()))
    init_dist('pytorch', backend='gloo', timeout=30)
    try:
        assert torch.distributed.get_backend() == 'gloo'
    finally:
        torch.distributed.destroy_process_group()


def test_a_gpu_is_left_to_mmengine(monkeypatch):
    called = []
    monkeypatch.setattr('mmseg_alignzeg.cpu_ranks.get_device', lambda: 'cuda')
    monkeypatch.setattr(
        'mmseg_alignzeg.cpu_ranks._with_gpu', lambda backend, **kwargs: called.append((backend, kwargs))
    )
    init_dist('pytorch', backend='nccl')
    assert called == [('nccl', dict(init_backend='torch'))]


def two_nodes(command, logs):
    """Run a command of mmseg under two torchrun agents that meet on loopback, one process each."""
    port = free_port()
    agents = [
        start(
            [
                *('-m', 'torch.distributed.run', '--nnodes', '2', '--nproc-per-node', '1', '--rdzv-backend', 'c10d'),
                *('--rdzv-endpoint', f'127.0.0.1:{port}', '--local-addr', '127.0.0.1', *map(str, command)),
            ],
            logs / f'{Path(command[0]).stem} {node}.log',
        )
        for node in range(2)
    ]
    for node, agent in enumerate(agents):
        log = logs / f'{Path(command[0]).stem} {node}.log'
        assert agent.wait(timeout=600) == 0, log.read_text()[-4000:]


def scores(folder):
    (found,) = folder.glob('*/*.json')
    return {key: value for key, value in json.loads(found.read_text()).items() if 'time' not in key}


@pytest.mark.slow
@pytest.mark.attack('ranks: two nodes train, resume and test')
def test_two_nodes_train_resume_and_test(tmp_path):
    work, config = tmp_path / 'work', 'configs/alignzeg_patterns.py'
    options = [*GLOO, *SMALL, 'default_hooks.checkpoint.interval=2']
    two_nodes([TOOLS / 'train.py', config, '--work-dir', work, *options, 'train_cfg.max_iters=2'], tmp_path)
    two_nodes([TOOLS / 'train.py', config, '--work-dir', work, '--resume', *options, 'train_cfg.max_iters=4'], tmp_path)
    assert (work / 'last_checkpoint').read_text().endswith('iter_4.pth')
    state = torch.load(work / 'iter_4.pth', weights_only=True)
    assert state['meta']['iter'] == 4 and all(value.isfinite().all() for value in state['state_dict'].values())
    test = [config, work / 'iter_4.pth', '--work-dir']
    two_nodes([TOOLS / 'test.py', *test, tmp_path / 'two', *GLOO, *SMALL], tmp_path)
    one = start(
        [*map(str, [TOOLS / 'test.py', *test, tmp_path / 'one']), '--cfg-options', *SMALL], tmp_path / 'one.log'
    )
    assert one.wait(timeout=300) == 0
    assert scores(tmp_path / 'two') == scores(tmp_path / 'one')


@pytest.mark.slow
@pytest.mark.attack('ranks: one is killed or frozen')
@pytest.mark.parametrize(('lost', 'by'), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_lost_rank_ends_the_other_within_its_time_out(tmp_path, lost, by):
    seconds, port = 20, free_port()
    options = [*GLOO, f'env_cfg.dist_cfg.timeout={seconds}', *SMALL, 'train_cfg.max_iters=100000']
    ranks = [
        start(
            [str(TOOLS / 'train.py'), 'configs/alignzeg_patterns.py', '--work-dir', str(tmp_path / 'work'), *options],
            tmp_path / f'{rank}.log',
            **dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2'),
            **dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)),
        )
        for rank in range(2)
    ]
    try:
        deadline = time.monotonic() + 300
        while 'Iter(train)' not in (tmp_path / '0.log').read_text():
            assert time.monotonic() < deadline and all(rank.poll() is None for rank in ranks)
            time.sleep(0.5)
        ranks[lost].send_signal(by)
        assert ranks[1 - lost].wait(timeout=4 * seconds) > 0, 'it must fail by itself'
        assert 'Error' in (tmp_path / f'{1 - lost}.log').read_text()
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
