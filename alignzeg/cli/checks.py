"""The checks of ``alignzeg doctor``. None needs a network, and a failed check does not prevent the others."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .stack import check_stack
from .versions import DISTRIBUTION, Check, check_version, one_line, requirements_of

EXTRAS = {'web': 'the web page', 'export': 'ONNX files', 'report': 'the map of proposal features'}
CLIP = ('ViT-B-16-quickgelu', 'openai')  # of the full-size configs
FREE_GB = 2  # CLIP's weights, text embeddings and a few checkpoints


def all_checks() -> Iterator[Check]:
    """Run all checks, one after the other, and yield their results."""
    yield from check_packages()
    library = check_library()
    yield library
    if library.status == 'ok':
        yield check_gpu()
        yield check_clip()
        yield check_model()
        yield check_cache()
    yield check_disk(with_cache=library.status == 'ok')


def check_packages() -> Iterator[Check]:
    """Check the versions of Python and of each package, required or optional, that the installed metadata lists."""
    try:
        own = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Check(
            DISTRIBUTION, 'PROBLEM', 'runs from a source folder and is not installed', 'run: pip install ".[lite]"'
        )
        return
    python = platform.python_version()
    wanted = own.metadata['Requires-Python'] or ''
    fits = SpecifierSet(wanted).contains(python)
    fix = '' if fits else 'create an environment with a tested version of Python'
    yield Check('python', 'ok' if fits else 'PROBLEM', f'{python} (tested: {wanted})', fix)
    yield Check(DISTRIBUTION, 'ok', own.version)
    requirements = [Requirement(text) for text in own.requires or ()]
    yield from map(check_version, requirements_of('', requirements))
    yield from check_stack(requirements)
    for extra, purpose in EXTRAS.items():
        for requirement in requirements_of(extra, requirements):
            yield check_version(requirement, f'only for {purpose}', f'pip install "{DISTRIBUTION}[{extra}]"')


def check_library() -> Check:
    """Check that mmseg and all modules of the package can be imported."""
    from .options import load_library

    begin = time.perf_counter()
    try:
        load_library()
        importlib.import_module('alignzeg.apis')
    except Exception as error:  # any package below may break in its own way
        return Check('import', 'PROBLEM', one_line(error), 'fix the problems above, then try: python -c "import mmseg"')
    return Check('import', 'ok', f'mmseg and all modules of {DISTRIBUTION}, in {time.perf_counter() - begin:.1f} s')


def check_gpu() -> Check:
    """Report the GPUs that torch can use."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Check('gpu', 'ok', f'CUDA {torch.version.cuda}: {", ".join(names)}')
    if torch.version.cuda is None:
        return Check(
            'gpu', 'note', 'torch is built for the CPU', 'to use a GPU, install torch as described on pytorch.org'
        )
    fix = 'prediction and the demo also run on the CPU; to use a GPU, check its driver with nvidia-smi'
    return Check('gpu', 'note', f'torch is built for CUDA {torch.version.cuda}, but no GPU is visible', fix)


def check_clip() -> Check:
    """Check whether the CLIP weights of the full-size configs are in open_clip's cache; nothing is downloaded."""
    import open_clip
    from huggingface_hub import constants

    from mmseg_alignzeg.models.clip_source import cached_weights

    cfg = open_clip.get_pretrained_cfg(*CLIP)
    repository = cfg['hf_hub'].rstrip('/')
    path = cached_weights(cfg)
    if path is not None:
        return Check('CLIP weights', 'ok', f'{"/".join(CLIP)}: {path}')
    fix = (
        'open_clip downloads them on the first run; without a network, copy open_clip_model.safetensors from '
        f'huggingface.co/{repository} to this machine and set model.clip.pretrained, or --clip-weights, to its path'
    )
    return Check('CLIP weights', 'note', f'{"/".join(CLIP)} (full size only) not in {constants.HF_HUB_CACHE}', fix)


def check_model() -> Check:
    """Check that the included model segments a scene of the embedded world."""
    try:
        from mmseg_alignzeg.datasets.patterns import IGNORE_LABEL, draw_scene

        from ..apis import AlignZegInferencer

        image, truth = draw_scene(2, 0)
        labels = AlignZegInferencer(device='cpu')(image)[0].labels
    except Exception as error:  # the check exercises the whole library, so anything may fail
        fix = 'reinstall the package: its files in assets/ may be damaged'
        return Check('included model', 'PROBLEM', one_line(error), fix)
    right = (labels == truth)[truth != IGNORE_LABEL].mean()
    if right < 0.5:
        fix = 'reinstall the package; if the problem remains, try another version of torch'
        return Check('included model', 'PROBLEM', f'only {right:.0%} of the pixels of a scene are correct', fix)
    return Check('included model', 'ok', f'{right:.0%} of the pixels of a scene are correct')


def check_cache() -> Check:
    """Report where text embeddings are cached, and check that the folder is writable."""
    from mmseg_alignzeg.files import cache_folder

    folder = cache_folder()
    files = list(folder.glob('text_*.safetensors')) if os.path.isdir(folder) else []
    size = sum(file.stat().st_size for file in files) / 2**20
    found = f'{folder}: {len(files)} file(s), {size:.1f} MB'
    nearest = existing_parent(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        fix = 'every run computes text embeddings again; set MMSEG_ALIGNZEG_CACHE to a writable folder'
        return Check('text cache', 'note', f'{found}, not writable', fix)
    return Check('text cache', 'ok', found)


def check_disk(with_cache: bool = True) -> Check:
    """Check the free disk space for results and, if the library can be imported to locate it, for the cache."""
    folders = [Path()]
    if with_cache:
        from mmseg_alignzeg.files import cache_folder

        folders.insert(0, existing_parent(cache_folder()))
    free = {str(folder): shutil.disk_usage(folder).free / 2**30 for folder in folders}
    found = ', '.join(f'{gigabytes:.0f} GB free in {os.path.abspath(folder)}' for folder, gigabytes in free.items())
    if min(free.values()) < FREE_GB:
        return Check(
            'disk', 'note', found, f'less than {FREE_GB} GB may be too little for weights and results: free some space'
        )
    return Check('disk', 'ok', found)


def existing_parent(folder: Path) -> Path:
    """Return ``folder`` if it exists, or else its nearest existing parent."""
    # Unlike `Path.exists`, `os.path.exists` treats an inaccessible folder, or a name that is too long, as absent.
    return next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
