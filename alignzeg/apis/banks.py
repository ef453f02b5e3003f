"""The text banks of an inferencer: one for each template set."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg_alignzeg.models import ClassNames, EmbeddingBank, TextBank
from mmseg_alignzeg.models.class_embeddings import Bank


class Banks:
    """Returns the text bank of a template set. It is kept, so the text tower encodes a vocabulary only once.

    Args:
        own: The bank of the model.
        keep: Whether embeddings are kept on disk; if not, the model's own bank is not used either.
    """

    def __init__(self, own: Bank, keep: bool = True) -> None:
        self.own, self.keep = own, keep
        self.banks: dict[tuple[str, bool], Bank] = {}
        if keep:
            self.banks[own.template_set, False] = own

    def __call__(self, templates: str | None, classes: Sequence[str]) -> Bank:
        """Return the bank of a template set, or of the model's for None.

        Raises:
            ValueError: If ``templates`` is given, and the classes of the model are embedded in a file.
        """
        own = self.own
        if isinstance(own, EmbeddingBank):
            if templates is not None:
                raise ValueError(
                    f'templates={templates!r} needs the text tower, but the classes of this model are embedded in '
                    f'{own.path}: leave `templates` or `text.embeddings` out.'
                )
            return own
        templates = templates or own.template_set
        strange = bool(own.names.table) and not any(name in own.names.table for name in classes)
        if (templates, strange) not in self.banks:
            names = ClassNames(combine=own.names.combine) if strange else own.names
            self.banks[templates, strange] = TextBank(own.source, templates, str(own.cache_dir), names, self.keep)
        return self.banks[templates, strange]
