"""The frozen image encoder: loading it, converting OpenAI's weights, and preparing the pictures for it."""

from clip.model import from_openai_state, load
from clip.transform import describe_preprocess, preprocess

__all__ = ["describe_preprocess", "from_openai_state", "load", "preprocess"]
