"""Upload of model folders to the Hugging Face Hub, with a model card."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCardData
from safetensors import safe_open

from mmseg_alignzeg.printable import printable

from .pretrained import CONFIG, WEIGHTS, find_pretrained, hub_error, is_hub_id, read_config
from .weights import IDENTITY_KEY

CARD = 'README.md'
CARD_TEXT = """\
---
{metadata}
---
# {hub_id}

A zero-shot semantic segmentation model, trained with [AlignZeg](https://arxiv.org/abs/2404.05667) as implemented in
`mmseg_alignzeg`. It segments images into any class names. `config.json` is plain JSON and `model.safetensors` holds the
trained weights; neither can execute code. CLIP's own weights are not included.

```python
from alignzeg.apis import AlignZegInferencer
from alignzeg.exchange import find_pretrained

inferencer = AlignZegInferencer(find_pretrained('{hub_id}', download=True))
prediction = inferencer('image.jpg', classes=['cat', 'sofa'], others=True)[0]
```

- CLIP: `{clip}`
- trained with labels of {num_seen} classes: {seen}
- unseen in training: {unseen}
"""


def push_to_hub(
    folder: str | Path, hub_id: str, public: bool = False, token: str | None = None, license: str | None = None
) -> str:
    """Upload a folder of :func:`save_pretrained` to the Hugging Face Hub, as one commit.

    Args:
        folder: Contains ``config.json`` and ``model.safetensors``. Its ``README.md`` is the model card; if there is
            none, :func:`model_card` writes the text.
        hub_id: ``org/name``; the repository is created if it does not exist.
        public: Visibility of a new repository; an existing one keeps its own.
        token: Access token with the right to write; by default the one of ``hf auth login`` or ``$HF_TOKEN``.
        license: Identifier of the hub, such as ``apache-2.0``, for a card that this function writes.

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: If the folder or one of its files does not exist.
        ValueError: If the id or the configuration is not valid.
        ConnectionError: If the upload fails, for whatever reason.
    """
    if not is_hub_id(hub_id):
        raise ValueError(f"{hub_id!r} is not the id of a model on the Hugging Face Hub: expected 'org/name'.")
    folder = find_pretrained(folder)
    card = folder / CARD
    text = card.read_bytes() if card.is_file() else model_card(folder, hub_id, license).encode()
    read_config(folder)
    operations = [
        CommitOperationAdd(CARD, text),
        *(CommitOperationAdd(name, folder / name) for name in (CONFIG, WEIGHTS)),
    ]
    try:
        api = HfApi(token=token)
        api.create_repo(hub_id, private=not public, exist_ok=True)
        return api.create_commit(hub_id, operations, commit_message='Upload a model of mmseg_alignzeg').commit_url
    except Exception as error:  # see `hub_error`
        raise ConnectionError(
            f'{hub_id!r} could not be uploaded to the Hugging Face Hub: {hub_error(error)} Check the network and the '
            'id, and log in with `hf auth login` or pass a token that may write.'
        ) from error


def model_card(folder: str | Path, hub_id: str, license: str | None = None) -> str:
    """Return the text of a model card (Markdown with YAML metadata) for a folder of :func:`save_pretrained`.

    Args:
        folder: See :func:`push_to_hub`.
        hub_id: See :func:`push_to_hub`.
        license: See :func:`push_to_hub`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the configuration is not valid.
    """
    folder = find_pretrained(folder)
    clip = read_config(folder)['model']['clip']
    with safe_open(folder / WEIGHTS, 'pt') as file:
        identity = json.loads((file.metadata() or {}).get(IDENTITY_KEY, '{}'))
    unseen = identity.get('unseen_classes', [])
    seen = [name for name in identity.get('classes', []) if name not in unseen]
    metadata = ModelCardData(
        license=license,
        library_name='mmseg_alignzeg',
        pipeline_tag='image-segmentation',
        tags=['zero-shot', 'open-vocabulary', 'semantic-segmentation', 'mmsegmentation', 'alignzeg'],
    )
    return CARD_TEXT.format(
        metadata=metadata.to_yaml(),
        hub_id=hub_id,
        clip=f'{clip["model_name"]}/{clip.get("pretrained", "a weight file")}',
        num_seen=len(seen),
        seen=_listed(seen),
        unseen=_listed(unseen),
    )


def _listed(names: list[str]) -> str:
    return ', '.join(f'`{printable(name)}`' for name in names) or 'none'
