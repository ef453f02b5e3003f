"""Prompt template sets by name."""

from __future__ import annotations

from mmseg.utils import get_predefined_templates
from mmseg.utils.get_templates import PREDEFINED_TEMPLATES

#: Sets that mmseg lacks. ``single`` and ``zegclip_coco`` are ZegCLIP's prompts for VOC and for COCO-Stuff.
TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    'single': ('a photo of a {}',),
    'zegclip_coco': (
        'a photo of a {}.',
        'a photo of a small {}.',
        'a photo of a medium {}.',
        'a photo of a large {}.',
        'This is a photo of a {}.',
        'This is a photo of a small {}.',
        'This is a photo of a medium {}.',
        'This is a photo of a large {}.',
        'a {} in the scene.',
        'a photo of a {} in the scene.',
        'There is a {} in the scene.',
        'There is the {} in the scene.',
        'This is a {} in the scene.',
        'This is the {} in the scene.',
        'This is one {} in the scene.',
    ),
}


def get_templates(name: str) -> tuple[str, ...]:
    """Return the templates of a set; each holds one ``{}`` for the class name.

    Args:
        name: A key of :data:`TEMPLATE_SETS`, or one of mmseg's own sets (``vild``, ``imagenet``, …).

    Raises:
        ValueError: If no set has that name.
    """
    if name in TEMPLATE_SETS:
        return TEMPLATE_SETS[name]
    if name in PREDEFINED_TEMPLATES:
        return tuple(get_predefined_templates(name))
    known = sorted({*TEMPLATE_SETS, *PREDEFINED_TEMPLATES})
    raise ValueError(f'Unknown template set {name!r}: choose one of {known}.')
