"""Make all of MMEngine's checkpoint loaders use :func:`read_checkpoint`.

The functions here replace MMEngine's loaders, so ``--resume``, ``load_from``, ``mim test`` and
``init_cfg=dict(type='Pretrained')`` apply the same checks. Unknown sources are refused.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as hubs

from .checkpoint_file import MapLocation, read_checkpoint


def load_from_local(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load a local file with :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load from a URL: download once to torch's cache folder, then use :func:`read_checkpoint`.

    Rank 0 downloads first; other ranks download only if they do not see its file, as on another machine.
    """
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(filename).path).name
    try:
        if get_rank() == 0:
            _fetch(filename, path)
    finally:
        barrier()
    _fetch(filename, path)
    return read_checkpoint(path, map_location)


def _fetch(address: str, path: Path) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), progress=False)


def load_from_hub(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load a model of torchvision, OpenMMLab or MMClassification by name.

    Raises:
        ValueError: If MMEngine's list of that hub does not contain the name.
    """
    scheme, _, name = filename.partition('://')
    if scheme == 'mmcls':
        addresses = hubs.get_mmcls_models()
    elif scheme in ('modelzoo', 'torchvision'):
        addresses = hubs.get_torchvision_models()
    else:
        addresses = hubs.get_external_models()
        name = hubs.get_deprecated_model_names().get(name, name)
    if name not in addresses:
        raise ValueError(f'{filename!r} is not in the list of {scheme}://: give the URL or the path of its file.')
    address = addresses[name]
    if address.startswith(('http://', 'https://')):
        checkpoint = load_from_http(address, map_location)
    else:
        checkpoint = read_checkpoint(Path(hubs._get_mmengine_home(), address), map_location)
    return hubs._process_mmcls_checkpoint(checkpoint) if scheme == 'mmcls' else checkpoint


def load_from_ceph(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load from ``s3://`` or ``petrel://``: copy to a temporary file, then use :func:`read_checkpoint`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, Path(filename).name)
        path.write_bytes(get_file_backend(filename, backend_args={'backend': 'petrel'}).get(filename))
        return read_checkpoint(path, map_location)


def load_from_elsewhere(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Refuse a source whose files cannot be checked before they are loaded."""
    raise ValueError(f'{filename!r} is refused, because it cannot be checked: copy the file here and give its path.')


KNOWN = {
    '': load_from_local,
    'http://': load_from_http,
    'https://': load_from_http,
    r'(\S+\:)?s3://': load_from_ceph,
    r'(\S+\:)?petrel://': load_from_ceph,
    **dict.fromkeys(('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://'), load_from_hub),
}
for prefix in {*KNOWN, *CheckpointLoader._schemes}:
    CheckpointLoader.register_scheme(prefix, KNOWN.get(prefix, load_from_elsewhere), force=True)
