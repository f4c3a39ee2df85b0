"""OpenAI's CLIP and what has its layout: archives and state dicts as the image encoder that transformers has of it."""

from clip.model import OPENAI_NAMES, fill, from_openai_state, is_openai, load, read_archive

__all__ = ["OPENAI_NAMES", "fill", "from_openai_state", "is_openai", "load", "read_archive"]
