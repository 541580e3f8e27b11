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

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from .hub_staging import find_part, stage


@dataclass(frozen=True)
class PushPlan:
    """What a push sends.

    Attributes:
        repo_id: `owner/name` on the Hub.
        source: the folder that is shared.
        files: name of each file in the repository -> size in bytes.
    """

    repo_id: str
    source: Path
    files: dict[str, int]

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
        private: only its owner sees a new repository.
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

    Args:
        source: folder of a run, of a model with its processor, or of an adapter.
        repo_id: `owner/name`; the repository is made if it does not exist.
        options: how.

    Raises:
        ConnectionError: if the Hub cannot be reached, refuses, or does not list all files after the commit.
        FileNotFoundError: if there is no such folder, or nothing to share in it.
        PermissionError: without a token, or for a repository that is not yours.
        ValueError: for a name that is none, weights that may not be passed on, or an adapter for a local folder.
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
    api.create_repo(plan.repo_id, private=options.private or None, exist_ok=True)
    if options.revision is not None:
        api.create_branch(plan.repo_id, branch=options.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=plan.repo_id,
        folder_path=folder,
        revision=options.revision,
        commit_message="Upload model with hf_audiolang",
    )
    there = set(api.list_repo_files(plan.repo_id, revision=commit.oid))
    missing = sorted(set(plan.files) - there)
    if missing:
        raise ConnectionError(
            f"`{plan.repo_id}` lacks {len(missing)} of {len(plan.files)} files after the commit, for instance "
            f"{missing[0]!r}. Push it again."
        )
    return f"{api.endpoint}/{plan.repo_id}" + (f"/tree/{options.revision}" if options.revision else "")


@contextmanager
def _staged(source: str | Path, repo_id: str, options: PushOptions) -> Iterator[tuple[PushPlan, Path]]:
    """(the plan, a folder with exactly its files) for the time of the block."""
    check_repo_id(repo_id)
    source = find_part(source, options.part)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        stage(
            source,
            folder,
            repo_id,
            with_code=options.with_code,
            max_shard_size=options.max_shard_size,
            base_model=options.base_model,
        )
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        yield PushPlan(repo_id, source, {str(p.relative_to(folder)): p.stat().st_size for p in paths}), folder


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
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise PermissionError(
                f"The Hub does not accept the token for `{repo_id}` (401). Log in again with `hf auth login`."
            ) from error
        if status in (403, 404):
            raise PermissionError(
                f"`{repo_id}` is not yours to write ({status}). Push to a name of your own, or use a token with write "
                "access to it."
            ) from error
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"The Hub refused the push to `{repo_id}` ({reason}). Try again later.") from error
    except HTTPError as error:
        raise ConnectionError(
            f"The Hub cannot be reached to push `{repo_id}` ({type(error).__name__}: {error}). Check the network and "
            "HF_ENDPOINT; nothing was committed."
        ) from error


__all__ = ["PushOptions", "PushPlan", "check_repo_id", "plan_push", "push"]
