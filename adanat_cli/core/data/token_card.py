"""The README.md of a token set: a data card that the Hub and ``datasets`` read."""

from __future__ import annotations

from bisect import bisect

import yaml

from adanat_cli.core.data.token_shards import TokenSetInfo

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")


def token_set_card(info: TokenSetInfo, num_images: int, repo: str = "") -> str:
    """Return the card as Markdown with YAML front matter.

    ``repo`` is the Hub id, "" where the set is a folder.
    """
    front = {
        "configs": [{"config_name": "default", "data_files": "tokens-*.parquet"}],
        "tags": ["adanat", "image-tokens"],
        "size_categories": [_SIZES[bisect([10**power for power in range(3, 8)], num_images)]],
    }
    columns = f"`tokens` ({info.num_tokens} ids, row by row)"
    if info.has_flips:
        columns += ", `tokens_flipped` (of the mirrored image)"
    columns += ", `caption`" if info.condition == "text" else f", `label` (of {info.num_classes} classes)"
    repo_name, _, revision = repo.partition("@")
    pinned = f', revision="{revision}"' if revision else ""
    opened = f'"{repo_name}"{pinned}' if repo else '"parquet", data_files="tokens-*.parquet"'
    loading = f'load_dataset({opened}, split="train")'
    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---
# {info.source}, as token ids

{num_images:,} images of {info.image_size} x {info.image_size} pixels as {info.grid[0]} x {info.grid[1]} grids of ids \
below {info.codebook_size}, made by `adanat tokenize`. Tokenizer: `{info.tokenizer_fingerprint}`.

Columns: {columns}.

## Use{"" if repo else ", from within this folder"}

```bash
adanat pretrain-nat --dataset <its name> --tokens {repo or "."} --model <model with this tokenizer>
```

```python
from datasets import load_dataset

tokens = {loading}
```

The ids mean something only to the tokenizer with this fingerprint. Rights in the images that they encode stay with
the source.
"""
