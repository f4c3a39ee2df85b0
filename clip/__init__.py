"""The frozen image encoder: loading it, converting OpenAI's weights, and preparing the pictures for it."""

from clip.model import count_blocks, from_openai_state, load
from clip.transform import SEEN, TRANSFORMS, describe_preprocess, preprocess

__all__ = ["SEEN", "TRANSFORMS", "count_blocks", "describe_preprocess", "from_openai_state", "load", "preprocess"]
