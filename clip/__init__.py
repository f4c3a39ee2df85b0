"""The image encoder by the names that it has for users: loading it, OpenAI's weights, CLIP's preparing of a picture."""

from PIL import Image
from torch import Tensor

from dvp.encoders import CLIP
from dvp.encoders.loading import load_encoder as load
from dvp.encoders.openai import from_openai_state
from dvp.encoders.transform import prepare

__all__ = ["from_openai_state", "load", "preprocess"]


def preprocess(image: Image.Image, size: int, turn: bool = False) -> Tensor:
    """The picture as a tensor (3, size, size): short side to `size` (bicubic), centre crop, CLIP's mean and std.

    turn: as its EXIF says that it is to be seen. Raises UserError for values of no known range.
    """
    return prepare(image, CLIP.at(size), turn)
