"""The frozen image encoder: loading it, converting OpenAI's weights, and preparing the pictures for it."""

from clip.model import count_blocks, from_openai_state, load
from clip.transform import describe_preprocess, middle_square, preprocess, processor_config

__all__ = [
    "count_blocks",
    "describe_preprocess",
    "from_openai_state",
    "load",
    "middle_square",
    "preprocess",
    "processor_config",
]
