"""The way to the Hugging Face hub, or to what HF_ENDPOINT names in its place."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from dvp.errors import UserError

CONFLICT = 409
SAID = {401: "the token is not valid", 403: "the token may not write there"}


def push(folder: Path, name: str, *, private: bool, overwrite: bool) -> str:
    """The address of the repository that has become the folder, in one commit.

    private: a new one is seen by its owner alone. overwrite: one that is there is taken, and its history stays. Raises
    UserError without a token or network, and for a repository that is there already or is not one's own.
    """
    if get_token() is None:
        raise UserError(f"push_to={name} needs a token: log in with `hf auth login`, or set HF_TOKEN.")
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=overwrite)
        # What the folder lacks goes: the repository is the export, and nothing of an older one stays beside it.
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export", delete_patterns="*")
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == CONFLICT and not overwrite:
            raise UserError(f"push_to={name} is there already: add overwrite=True, or choose another name.") from error
        reason = SAID.get(status) or str(error).strip().splitlines()[-1]
        raise UserError(
            f"{api.endpoint} refused push_to={name} ({status}: {reason}): check the name and the token."
        ) from error
    except (HTTPError, OfflineModeIsEnabled) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{api.endpoint} cannot be reached ({reason}): run this again where there is a network."
        ) from error
    return f"{api.endpoint}/{name}"
