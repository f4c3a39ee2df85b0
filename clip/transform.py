"""From a picture to what CLIP's image encoder takes."""

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pictures that CLIP was trained on, per RGB channel
STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(image: Image.Image, size: int) -> Tensor:
    """The picture as a tensor (3, size, size): short side to `size` (bicubic), centre crop, CLIP's mean and std."""
    # RGB comes first: a palette picture cannot be resized bicubically, and the published data code does the same.
    image = F.resize(image.convert("RGB"), size, InterpolationMode.BICUBIC)
    return F.normalize(F.to_tensor(F.center_crop(image, size)), MEAN, STD)


def squeeze(image: Image.Image, size: int) -> Tensor:
    """The picture as a tensor (3, size, size): squeezed to a square (bicubic), ImageNet's mean and std.

    Source: the published ScienceQA code, though CLIP was trained on pictures of another mean and std.
    """
    image = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return F.normalize(F.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)


TRANSFORMS = {"crop": preprocess, "squeeze": squeeze}
