"""Whether a model that a setting names can be had, asked before torch is imported and before anything is fetched."""

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from dvp.encoders.open_clip import OPEN_CLIP
from dvp.errors import UserError
from dvp.files import is_path

TELL = ("config.json", "params.json", OPEN_CLIP)  # of a model: transformers', Meta's, open_clip's
PATIENCE = 10  # seconds for the hub to say that it is there


def is_nowhere(place: str) -> bool:
    """Whether it is written as a path, and nothing is there."""
    return is_path(place) and not Path(place).expanduser().exists()


def holds_no_model(place: str) -> bool:
    """Whether it is written as a path, and no model is there: nothing, or a folder that tells of none."""
    folder = Path(place).expanduser()
    return is_nowhere(place) or is_path(place) and folder.is_dir() and not any((folder / one).is_file() for one in TELL)


def require_reach(tokenizer: str, hint: str = "") -> None:
    """Raise UserError for the name of a language model that is not kept here, where the hub cannot be reached.

    It is asked once, where what fetches tries for half a minute. hint: what else can be done. What the hub says of a
    name that it does not have is told by what fetches.
    """
    if Path(tokenizer).expanduser().is_dir():
        return
    api = HfApi()
    try:
        if not isinstance(try_to_load_from_cache(tokenizer, "config.json"), str):
            api.model_info(tokenizer, timeout=PATIENCE)
    except (HfHubHTTPError, HFValidationError):
        return
    # ConnectionError where HF_HUB_OFFLINE forbids it, the last two where the proxy is of a kind that httpx cannot use
    except (HTTPError, ConnectionError, ImportError, ValueError):
        raise UserError(
            f"tokenizer={tokenizer} is no folder here, and {api.endpoint} cannot be reached to fetch it: copy its "
            f"folder (config.json, tokenizer files, weights) here and give tokenizer=./{Path(tokenizer).name}{hint}."
        ) from None
