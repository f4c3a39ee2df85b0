"""An exported checkpoint by its name on the Hugging Face hub, or on what HF_ENDPOINT names in its place."""

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from dvp.errors import UserError
from dvp.files import EXPORTED, read_json

NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # user/name
PATIENCE = 10  # seconds for the hub to say that it is there


def local_folder(path: str | Path) -> Path:
    """The path where something is there, or that is no name; else the folder that the hub's repository is kept in.

    What was brought before is asked for anew, and taken as it is without a network. Raises UserError for a repository
    that is not there or no export, and without a network.
    """
    name, api = str(path), HfApi()
    if Path(path).exists() or not NAME.fullmatch(name):
        return Path(path)
    try:
        api.model_info(name, timeout=PATIENCE)  # which does not try again and again where there is no network
        if _is_export(api, name):
            return Path(api.snapshot_download(name))
    except HfHubHTTPError as error:
        raise UserError(
            f"{name} is no folder here, and {api.endpoint} does not give it ({error.response.status_code}): check the "
            "name, or log in with `hf auth login` where it is private."
        ) from None
    except (HTTPError, ConnectionError):  # the latter where HF_HUB_OFFLINE forbids it
        return _kept(api, name)
    raise UserError(
        f"{name} on {api.endpoint} is no export of this project: give one that `export` with push_to= has made."
    )


def _is_export(api: HfApi, name: str) -> bool:
    """Whether the repository's config.json says so, which is looked at before all of it is brought."""
    try:
        return read_json(Path(api.hf_hub_download(name, EXPORTED))).get("model_type") == "dvp"
    except EntryNotFoundError:
        return False


def _kept(api: HfApi, name: str) -> Path:
    try:
        return Path(api.snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{name} is no folder here, and {api.endpoint} cannot be reached to look for it there: give a folder, or "
            "try again where there is a network."
        ) from None
