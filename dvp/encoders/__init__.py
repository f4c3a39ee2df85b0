"""The image encoders: a row of a table each, what the files of one say of it, and how a picture is made ready for it.

What is imported here needs no torch: files are looked at before that is imported. The rest is in `loading`, which knows
transformers' models, and `transform`, which makes pixels.
"""

from dvp.encoders.folder import Told, read_folder, require_size
from dvp.encoders.preprocessing import CLIP, Preprocessing
from dvp.encoders.rows import ENCODERS, Encoder

__all__ = ["CLIP", "ENCODERS", "Encoder", "Preprocessing", "Told", "read_folder", "require_size"]
