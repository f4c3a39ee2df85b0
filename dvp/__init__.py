"""Dynamic Visual Prompting: one visual token, put in front of the text before layer K of a language model."""

import os

# Large blocks on the host in huge pages, of which there are fewer to touch. torch reads this at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
