"""The way to the Hugging Face hub, or to what HF_ENDPOINT names in its place."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from dvp.errors import UserError
from dvp.files import files_in

CONFLICT = 409
SAID = {401: "the token is not valid", 403: "the token may not write there"}


def push(folder: Path, name: str, *, private: bool, overwrite: bool) -> str:
    """The address of the repository that has become the folder, in one commit.

    private: a new one is seen by its owner alone. overwrite: one that is there is taken, and its history stays. Raises
    UserError without a token or network, and for a repository that is there already or is not one's own.
    """
    if get_token() is None:
        raise UserError(f"push_to={name} needs a token: log in with `hf auth login`, or set HF_TOKEN.")
    api, files = HfApi(), {path.relative_to(folder).as_posix(): path for path in files_in(folder)}
    try:
        api.create_repo(name, private=private, exist_ok=overwrite)
        # What the folder lacks goes: the repository is the export, and nothing of an older one stays beside it.
        there = api.list_repo_files(name) if overwrite else []
        left = [CommitOperationDelete(one) for one in there if one not in files and one != ".gitattributes"]
        api.create_commit(name, left + [CommitOperationAdd(one, files[one]) for one in files], commit_message="Export")
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == CONFLICT and not overwrite:
            raise UserError(f"push_to={name} is there already: add overwrite=True, or choose another name.") from error
        reason = SAID.get(status) or str(error).strip().splitlines()[-1]
        raise UserError(
            f"{api.endpoint} refused push_to={name} ({status}: {reason}): check the name and the token."
        ) from error
    except (HTTPError, ConnectionError, RuntimeError) as error:  # the last of a file that could not be sent
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"{api.endpoint} did not take push_to={name} ({reason}): run this again where there is a network; add "
            "overwrite=True if the repository is there."
        ) from error
    return f"{api.endpoint}/{name}"
