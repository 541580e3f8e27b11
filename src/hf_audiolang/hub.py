# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sharing on the Hugging Face Hub: what would be sent, and one commit that sends all of it or nothing.

run, model or adapter folder -> stage (files to share, cleaned, card) -> PushPlan -> push: one commit -> listed again
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from .hub_staging import find_part, is_shared_name, stage


@dataclass(frozen=True)
class PushPlan:
    """What a push sends.

    Attributes:
        repo_id: `owner/name` on the Hub.
        source: the folder that is shared.
        files: name of each file in the repository -> size in bytes.
        base_model: Hub id of the model that an adapter needs; None for a model.
    """

    repo_id: str
    source: Path
    files: dict[str, int]
    base_model: str | None = None

    def summary(self) -> str:
        """The files with their sizes, one a line."""
        lines = [f"{self.source} -> {self.repo_id}"]
        lines += [f"  {size / 1e6:10.3f} MB  {name}" for name, size in self.files.items()]
        return "\n".join([*lines, f"{sum(self.files.values()) / 1e6:.3f} MB in {len(self.files)} files"])


@dataclass(frozen=True)
class PushOptions:
    """How a folder is shared.

    Attributes:
        part: which of a run's folders: "model", "captioner" or "adapter".
        private: only its owner sees a new repository; one that all can see is refused.
        revision: branch that is written; None: the main one.
        with_code: the source files go along, so that it loads with `trust_remote_code=True` without this package.
        max_shard_size: largest weight file, such as "2GB"; None leaves them as they are.
        base_model: Hub id of the model that an adapter needs, in place of the folder it was trained on.
    """

    part: str = "model"
    private: bool = False
    revision: str | None = None
    with_code: bool = False
    max_shard_size: str | None = None
    base_model: str | None = None


def plan_push(source: str | Path, repo_id: str, options: PushOptions | None = None) -> PushPlan:
    """What `push` would send, without any network.

    Raises:
        FileNotFoundError, ValueError: as `push` says before it sends.
    """
    with _staged(source, repo_id, options or PushOptions()) as plan_and_folder:
        return plan_and_folder[0]


def push(source: str | Path, repo_id: str, options: PushOptions | None = None) -> str:
    """Sends a folder to the Hub in one commit, makes sure that all of it is there, and returns the address.

    Files of an earlier push that this one does not have are deleted in the same commit: weights in one file would be
    loaded in place of newer ones in several. Files of other kinds stay as they are.

    Args:
        source: folder of a run, of a model with its processor, or of an adapter.
        repo_id: `owner/name`; the repository is made if it does not exist.
        options: how.

    Raises:
        ConnectionError: if the Hub cannot be reached, refuses, or does not list all files after the commit.
        FileNotFoundError: if there is no such folder, or nothing to share in it.
        PermissionError: without a token, or for a repository that is not yours.
        ValueError: for a name that is none, weights that may not be passed on, paths of this machine in the texts, an
            adapter whose base is not on the Hub, or a private push into a repository that all can see.
    """
    options = options or PushOptions()
    with _staged(source, repo_id, options) as (plan, folder):
        if get_token() is None:
            raise PermissionError(
                f"There is no token to push to `{repo_id}` with. Make one with write access at "
                "https://huggingface.co/settings/tokens, and log in with `hf auth login` or set HF_TOKEN."
            )
        with _explained(repo_id):
            return _send(plan, folder, options)


def _send(plan: PushPlan, folder: Path, options: PushOptions) -> str:
    api = HfApi()
    if plan.base_model is not None:
        _check_base(api, plan.base_model)
    api.create_repo(plan.repo_id, private=options.private or None, exist_ok=True)
    if options.private and not api.repo_info(plan.repo_id).private:
        raise ValueError(
            f"`private` is set, but `{plan.repo_id}` exists already and is public, so everybody would see the push. "
            "Make it private in its settings first, or choose another name."
        )
    if options.revision is not None:
        api.create_branch(plan.repo_id, branch=options.revision, exist_ok=True)
    before = api.repo_info(plan.repo_id, revision=options.revision)
    additions = [CommitOperationAdd(name, str(folder / name)) for name in plan.files]
    old = {item.rfilename for item in before.siblings or [] if is_shared_name(item.rfilename)}
    commit = api.create_commit(  # and not `upload_folder`, which makes several commits of a slow upload
        plan.repo_id,
        [*additions, *(CommitOperationDelete(name) for name in sorted(old - set(plan.files)))],
        commit_message="Upload model with hf_audiolang",
        revision=options.revision,
        parent_commit=before.sha,
    )
    _check_arrived(plan, folder, api.repo_info(plan.repo_id, revision=commit.oid, files_metadata=True))
    return f"{api.endpoint}/{plan.repo_id}" + (f"/tree/{options.revision}" if options.revision else "")


def _check_base(api: HfApi, base_model: str) -> None:
    if not api.repo_exists(base_model):
        raise ValueError(
            f"The adapter needs the model `{base_model}`, which is not on the Hub, so nobody could load it. Push that "
            "model first, or give another as `base_model` (--base-model owner/name)."
        )


def _check_arrived(plan: PushPlan, folder: Path, after: ModelInfo) -> None:
    """Every file of the plan is listed with the checksum of its content, not that of an older one of its size."""
    there = {item.rfilename: item for item in after.siblings or []}
    missing = [name for name in plan.files if not (name in there and _is_same(folder / name, there[name]))]
    if missing:
        raise ConnectionError(
            f"`{plan.repo_id}` lacks {len(missing)} of {len(plan.files)} files after the commit, or has other "
            f"contents in them, for instance {missing[0]!r}. Push it again."
        )


def _is_same(path: Path, listed: RepoSibling) -> bool:
    """Whether a listed file has the content of a local one: by SHA-256 if the Hub keeps it apart, else as git does."""
    if listed.lfs is None:
        return listed.blob_id == git_hash(path.read_bytes())
    with path.open("rb") as file:
        return listed.lfs.sha256 == sha_fileobj(file).hex()


@contextmanager
def _staged(source: str | Path, repo_id: str, options: PushOptions) -> Iterator[tuple[PushPlan, Path]]:
    """(the plan, a folder with exactly its files) for the time of the block."""
    check_repo_id(repo_id)
    source = find_part(source, options.part)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        base_model = stage(
            source,
            folder,
            repo_id,
            with_code=options.with_code,
            max_shard_size=options.max_shard_size,
            base_model=options.base_model,
        )
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        yield PushPlan(repo_id, source, files, base_model), folder


def check_repo_id(repo_id: str) -> None:
    """Makes sure that a name is `owner/name`.

    Raises:
        ValueError: if it is not.
    """
    try:
        validate_repo_id(repo_id)
        is_named = repo_id.count("/") == 1
    except HFValidationError:
        is_named = False
    if not is_named:
        raise ValueError(
            f"`repo_id` must be owner/name, got {repo_id!r}. Use letters, digits, `-`, `_` and `.`, as in me/my-model."
        )


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turns errors of the Hub's client into messages that say what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(repo_id, error) from error
    except OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"The Hub is switched off by HF_HUB_OFFLINE, so `{repo_id}` was not pushed. Unset it and push again."
        ) from error
    except HTTPError as error:
        raise ConnectionError(
            f"The Hub cannot be reached to push `{repo_id}`, or the connection broke ({_first_line(error)}). Nothing "
            "says that the push has arrived: check the network and HF_ENDPOINT, and push again."
        ) from error
    except RuntimeError as error:  # of an upload, in a thread or in Xet's client
        raise ConnectionError(
            f"The upload to `{repo_id}` failed ({_first_line(error.__cause__ or error)}). Nothing was committed: push "
            "again, and what has arrived is not sent a second time."
        ) from error


def _refused(repo_id: str, error: HfHubHTTPError) -> OSError:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return PermissionError(
            f"The Hub does not accept the token for `{repo_id}` (401). Log in again with `hf auth login`."
        )
    if status in (403, 404):
        return PermissionError(
            f"`{repo_id}` is not yours to write ({status}). Push to a name of your own, or use a token with write "
            "access to it."
        )
    return ConnectionError(
        f"The Hub refused the push to `{repo_id}` ({_first_line(error)}). Nothing says that it has arrived: try again "
        "later."
    )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["PushOptions", "PushPlan", "check_repo_id", "plan_push", "push"]
