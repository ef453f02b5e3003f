"""The checks of ``alignzeg doctor``; none needs a network, and one that fails keeps no other from its turn."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ..cache import cache_folder

DISTRIBUTION = 'mmseg_alignzeg'
EXTRAS = {'web': 'the web page', 'export': 'ONNX files', 'report': 'the map of proposal features'}
CLIP = ('ViT-B-16-quickgelu', 'openai')  # of the full-size configs
FREE_GB = 2  # CLIP's weights, text embeddings and a few checkpoints


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        name: Of the thing.
        status: ``ok``, ``note`` (optional, or good to know) or ``PROBLEM``.
        found: One line.
        fix: What to do, or ''.
    """

    name: str
    status: str
    found: str
    fix: str = ''


def all_checks() -> Iterator[Check]:
    """Every check, one after the other."""
    yield from check_packages()
    yield check_mmcv()
    library = check_library()
    yield library
    if library.status == 'ok':
        yield check_gpu()
        yield check_clip()
        yield check_model()
    yield check_cache()
    yield check_disk()


def check_packages() -> Iterator[Check]:
    """Versions of Python and of each package that the installed metadata asks for, and of optional ones."""
    try:
        own = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Check(DISTRIBUTION, 'PROBLEM', 'runs from a folder, is not installed', 'run: pip install ".[lite]"')
        return
    python = platform.python_version()
    wanted = own.metadata['Requires-Python'] or ''
    fits = SpecifierSet(wanted).contains(python)
    fix = '' if fits else 'make an environment with such a Python'
    yield Check('python', 'ok' if fits else 'PROBLEM', f'{python} (tested: {wanted})', fix)
    yield Check(DISTRIBUTION, 'ok', own.version)
    requirements = [Requirement(text) for text in own.requires or ()]
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({'extra': ''}):
            yield check_version(requirement)
    for extra, purpose in EXTRAS.items():
        for requirement in requirements:
            marker = requirement.marker
            if marker is not None and marker.evaluate({'extra': extra}) and not marker.evaluate({'extra': ''}):
                yield check_version(requirement, f'only for {purpose}', f'pip install "{DISTRIBUTION}[{extra}]"')


def check_version(requirement: Requirement, purpose: str = '', install: str = '') -> Check:
    """One package: there, and in the tested range; with a ``purpose`` it is optional."""
    name, wanted = requirement.name, str(requirement.specifier)
    bad = 'note' if purpose else 'PROBLEM'
    suffix = f' ({purpose})' if purpose else ''
    fix = install or f'run: pip install "{name}{wanted}"'
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, bad, f'not installed{suffix}', fix)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, bad, f'{version}, outside of the tested {wanted}{suffix}', fix)
    return Check(name, 'ok', f'{version}{f" (tested: {wanted})" if wanted else ""}')


def check_mmcv() -> Check:
    """One MMCV of a version that mmseg takes; compiled or not."""
    found = {}
    for name in ('mmcv', 'mmcv-lite'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if not found:
        return Check('mmcv', 'PROBLEM', 'not installed', 'run: pip install mmcv-lite==2.1.0 (a wheel, no compiler)')
    told = ' and '.join(f'{name} {version}' for name, version in found.items())
    if len(found) > 1:
        fix = 'both write the same folder; run: pip uninstall mmcv mmcv-lite, then pip install mmcv-lite==2.1.0'
        return Check('mmcv', 'PROBLEM', told, fix)
    version = next(iter(found.values()))
    if not SpecifierSet('>=2.0.0rc4,<2.2.0').contains(version, prereleases=True):
        fix = 'mmsegmentation 1.2.2 takes mmcv>=2.0.0rc4,<2.2.0; run: pip install mmcv-lite==2.1.0'
        return Check('mmcv', 'PROBLEM', told, fix)
    try:
        compiled = importlib.util.find_spec('mmcv._ext') is not None
    except Exception as error:  # looking for it imports mmcv, which may fail in any way
        return Check('mmcv', 'PROBLEM', f'{told}: {one_line(error)}', 'install it again')
    return Check('mmcv', 'ok', f'{told}, {"compiled operators" if compiled else "no compiled operators (none needed)"}')


def check_library() -> Check:
    """Whether everything imports together."""
    from .options import load_library

    begin = time.perf_counter()
    try:
        load_library()
    except Exception as error:  # any package below may break in its own way
        return Check('import', 'PROBLEM', one_line(error), 'fix what is said above; then try: python -c "import mmseg"')
    return Check('import', 'ok', f'mmseg and all modules of {DISTRIBUTION}, in {time.perf_counter() - begin:.1f} s')


def check_gpu() -> Check:
    """What torch can compute on."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Check('gpu', 'ok', f'CUDA {torch.version.cuda}: {", ".join(names)}')
    if torch.version.cuda is None:
        return Check('gpu', 'note', 'torch is built for the CPU', 'for a GPU install torch as pytorch.org says')
    fix = 'prediction and the demo work on the CPU; for a GPU look at its driver with nvidia-smi'
    return Check('gpu', 'note', f'torch is built for CUDA {torch.version.cuda}, but no GPU is visible', fix)


def check_clip() -> Check:
    """Whether the weights of the full-size configs are where open_clip would look; nothing is fetched."""
    import open_clip
    from huggingface_hub import constants, try_to_load_from_cache

    cfg = open_clip.get_pretrained_cfg(*CLIP)
    repository = cfg['hf_hub'].rstrip('/')
    for file in ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin'):
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return Check('CLIP weights', 'ok', f'{"/".join(CLIP)}: {path}')
    fix = (
        'open_clip fetches them on the first run; without network copy open_clip_model.safetensors of '
        f'huggingface.co/{repository} here and set model.clip.pretrained, or --clip-weights, to its path'
    )
    return Check('CLIP weights', 'note', f'{"/".join(CLIP)} (full size only) not in {constants.HF_HUB_CACHE}', fix)


def check_model() -> Check:
    """Whether the shipped model segments a scene of its world."""
    try:
        from ..apis import AlignZegInferencer
        from ..datasets.patterns import IGNORE_LABEL, draw_scene

        image, truth = draw_scene(2, 0)
        labels = AlignZegInferencer(device='cpu')(image)[0].labels
    except Exception as error:  # it runs through everything; whatever it was, this is what does not work
        fix = 'install the package again: its files in assets/ may be damaged'
        return Check('shipped model', 'PROBLEM', one_line(error), fix)
    right = (labels == truth)[truth != IGNORE_LABEL].mean()
    if right < 0.5:
        fix = 'install the package again; if it stays, try another version of torch'
        return Check('shipped model', 'PROBLEM', f'only {right:.0%} of a scene are right', fix)
    return Check('shipped model', 'ok', f'{right:.0%} of the pixels of a scene are right')


def check_cache() -> Check:
    """Where text embeddings are kept."""
    folder = cache_folder()
    files = list(folder.glob('text_*.safetensors')) if os.path.isdir(folder) else []
    size = sum(file.stat().st_size for file in files) / 2**20
    found = f'{folder}: {len(files)} file(s), {size:.1f} MB'
    nearest = existing_parent(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        fix = 'every run computes text embeddings again; set MMSEG_ALIGNZEG_CACHE to a folder that can be written'
        return Check('text cache', 'note', f'{found}, cannot be written', fix)
    return Check('text cache', 'ok', found)


def check_disk() -> Check:
    """Free space where caches and results go."""
    free = {str(folder): shutil.disk_usage(folder).free / 2**30 for folder in (existing_parent(cache_folder()), Path())}
    found = ', '.join(f'{gigabytes:.0f} GB free in {os.path.abspath(folder)}' for folder, gigabytes in free.items())
    if min(free.values()) < FREE_GB:
        return Check('disk', 'note', found, f'less than {FREE_GB} GB may not hold weights and results: make room')
    return Check('disk', 'ok', found)


def existing_parent(folder: Path) -> Path:
    """A path, or the nearest one above it that exists."""
    # Unlike `Path.exists`, it takes a folder that cannot be entered, or too long a name, for absent.
    return next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))


def one_line(error: Exception) -> str:
    """Kind and text of an error."""
    return f'{type(error).__name__}: {" ".join(str(error).split())}'
