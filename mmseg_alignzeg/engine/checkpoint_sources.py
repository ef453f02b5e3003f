"""Wherever MMEngine loads a checkpoint from, it is read by :func:`read_checkpoint`.

The readers here take the place of MMEngine's, so that ``--resume``, ``load_from``, ``mim test`` and
``init_cfg=dict(type='Pretrained')`` go through the same checks. A place that is not known here is refused.
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
    """MMEngine's reader of local files; see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """MMEngine's reader of web addresses: fetched once into torch's folder, then see :func:`read_checkpoint`.

    Rank 0 fetches first; the others follow when they do not see its file, as on another machine.
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
    """MMEngine's reader of names: of torchvision, OpenMMLab or MMClassification.

    Raises:
        ValueError: If the list of that hub, which MMEngine has, does not name the model.
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
        raise ValueError(f'{filename!r} is not in the list of {scheme}://: give the address or the path of its file.')
    address = addresses[name]
    if address.startswith(('http://', 'https://')):
        checkpoint = load_from_http(address, map_location)
    else:
        checkpoint = read_checkpoint(Path(hubs._get_mmengine_home(), address), map_location)
    return hubs._process_mmcls_checkpoint(checkpoint) if scheme == 'mmcls' else checkpoint


def load_from_ceph(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """MMEngine's reader of ``s3://`` and ``petrel://``: copied to a temporary file first."""
    with TemporaryDirectory() as folder:
        path = Path(folder, Path(filename).name)
        path.write_bytes(get_file_backend(filename, backend_args={'backend': 'petrel'}).get(filename))
        return read_checkpoint(path, map_location)


def load_from_elsewhere(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Refuse a place whose files cannot be checked before they are read."""
    raise ValueError(f'{filename!r} is not read, because it cannot be checked: copy the file here and give its path.')


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
