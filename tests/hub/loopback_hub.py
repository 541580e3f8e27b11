# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""A small Hub on the loopback interface: repositories in memory, tokens, branches, and failures on demand.

with LoopbackHub({"secret": "me"}) as hub:  # token -> user
    HF_ENDPOINT=hub.endpoint HF_TOKEN=secret ...
    hub.repos["me/model"].branches["main"]["config.json"]  # bytes
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import ModelCard

REGULAR_SUFFIXES = (".json", ".md", ".py", ".txt", ".jinja", ".gitattributes")


DATASET_TYPE = r"(?:[\w-]+/)?[\w.-]+"  # of results in a card's metadata


def fits(dataset_type: str) -> bool:
    return re.fullmatch(DATASET_TYPE, dataset_type, flags=re.ASCII) is not None


@dataclass
class Repo:
    """One repository: branch or commit -> files."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    num_commits: int = 0

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.branches.get(revision, self.commits.get(revision))

    def sha(self, revision: str) -> str:
        if revision in self.commits:
            return revision
        listing = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in self.branches[revision].items()})
        return hashlib.sha1(listing.encode()).hexdigest()


class LoopbackHub:
    """The server.

    `fails_on` has regular expressions over "METHOD path" of requests, with the status that they get; status 0 cuts the
    connection without an answer. `loses` is one over "owner/name/file" of what a commit leaves out, `ignores` of what
    the Hub asks a client not to send.
    """

    def __init__(self, users: dict[str, str], fails_on: dict[str, int] | None = None, loses: str | None = None):
        self.users, self.fails_on, self.loses = users, fails_on or {}, loses
        self.ignores: str | None = None
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []

    def __enter__(self) -> "LoopbackHub":
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.query, path = parse_qs(url.query), unquote(url.path)
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        else:
            self.body = self.rfile.read(length)
        self.hub.requests.append(f"{self.command} {path}")
        status = next(
            (value for key, value in self.hub.fails_on.items() if re.search(key, f"{self.command} {path}")), None
        )
        if status == 0:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if status is not None:
            self.answer(status, {"error": "on demand"})
            return
        for pattern, method in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                method(self, *match.groups())
                return
        self.answer(404, {"error": f"no route for {self.command} {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815 - names of the base class

    @property
    def hub(self) -> LoopbackHub:
        return self.server_hub

    @property
    def user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.hub.users.get(token)

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def may_write(self, owner: str) -> bool:
        if self.user is None:
            self.answer(401, {"error": "Invalid credentials"})
            return False
        if self.user != owner:
            self.answer(403, {"error": "You don't have the rights"})
            return False
        return True

    def repo_of(self, repo_id: str) -> Repo | None:
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and self.user != repo_id.split("/")[0]):
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repo

    # routes

    def whoami(self) -> None:
        if self.user is None:
            self.answer(401, {"error": "Invalid credentials"})
        else:
            self.answer(200, {"name": self.user, "type": "user", "orgs": []})

    def create(self) -> None:
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or self.user
        if not self.may_write(owner):
            return
        repo_id = f"{owner}/{wanted['name'].split('/')[-1]}"
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        if repo_id in self.hub.repos:
            self.answer(409, {"error": "exists", "url": f"{self.hub.endpoint}/{repo_id}"})
            return
        self.hub.repos[repo_id] = Repo(private)
        self.answer(200, {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id})

    def branch(self, repo_id: str, name: str) -> None:
        repo = self.repo_of(repo_id)
        if repo is None or not self.may_write(repo_id.split("/")[0]):
            return
        if name in repo.branches:
            self.answer(409, {"error": "exists"})
            return
        repo.branches[name] = dict(repo.branches["main"])
        self.answer(200)

    def validate(self) -> None:
        try:
            card = ModelCard(json.loads(self.body)["content"], ignore_metadata_errors=False)
            wrong = [result.dataset_type for result in card.data.eval_results or [] if not fits(result.dataset_type)]
            if wrong:
                raise ValueError(f'"model-index[0].results[0].dataset.type" fails to match {DATASET_TYPE}: {wrong}')
        except ValueError as error:
            self.answer(400, {"errors": [{"message": str(error)}], "warnings": []})
            return
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, repo_id: str, revision: str) -> None:
        repo = self.repo_of(repo_id)
        if repo is None or not self.may_write(repo_id.split("/")[0]):
            return
        files = json.loads(self.body)["files"]
        modes = [
            {
                "path": item["path"],
                "uploadMode": "regular" if item["path"].endswith(REGULAR_SUFFIXES) else "lfs",
                "shouldIgnore": bool(self.hub.ignores and re.search(self.hub.ignores, f"{repo_id}/{item['path']}")),
                "oid": None,
            }
            for item in files
        ]
        self.answer(200, {"files": modes})

    def lfs(self, repo_id: str) -> None:
        objects = json.loads(self.body)["objects"]
        actions = [
            {
                "oid": item["oid"],
                "size": item["size"],
                "actions": {"upload": {"href": f"{self.hub.endpoint}/blobs/{repo_id}/{item['oid']}", "header": {}}},
            }
            for item in objects
        ]
        self.answer(200, {"transfer": "basic", "objects": actions})

    def put_blob(self, repo_id: str, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.answer(400, {"error": "not what was announced"})
            return
        self.hub.blobs[oid] = self.body
        self.answer(200)

    def commit(self, repo_id: str, revision: str) -> None:
        repo = self.repo_of(repo_id)
        if repo is None or not self.may_write(repo_id.split("/")[0]):
            return
        files = dict(repo.branches[revision])
        header, *items = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit", repo.sha(revision)) != repo.sha(revision):
            self.answer(412, {"error": "a commit has happened since"})
            return
        for item in items:
            if item["key"] == "deletedFile":
                del files[item["value"]["path"]]
            elif item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "lfsFile":
                files[item["value"]["path"]] = self.hub.blobs[item["value"]["oid"]]
        if self.hub.loses:
            files = {name: data for name, data in files.items() if not re.search(self.hub.loses, f"{repo_id}/{name}")}
        repo.branches[revision] = files
        repo.num_commits += 1
        sha = repo.sha(revision)
        repo.commits[sha] = files
        address = f"{self.hub.endpoint}/{repo_id}/commit/{sha}"
        self.answer(200, {"success": True, "commitUrl": address, "commitOid": sha})

    def info(self, repo_id: str, revision: str | None = None) -> None:
        repo = self.repo_of(repo_id)
        revision = revision or "main"
        if repo is None:
            return
        files = repo.files(revision)
        if files is None:
            self.answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": name, **self._metadata(name, files[name])} for name in sorted(files)]
        about = {"id": repo_id, "sha": repo.sha(revision), "siblings": siblings, "private": repo.private, "tags": []}
        self.answer(200, about)

    def _metadata(self, name: str, data: bytes) -> dict[str, object]:
        if "blobs" not in self.query:
            return {}
        content = data
        found = {"size": len(data)}
        if not name.endswith(REGULAR_SUFFIXES):
            found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            content = f"version https://git-lfs.github.com/spec/v1\noid sha256:{found['lfs']['sha256']}\n".encode()
        return {**found, "blobId": hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()}

    def tree(self, repo_id: str, revision: str, folder: str | None = None) -> None:
        repo = self.repo_of(repo_id)
        if repo is None:
            return
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in sorted((repo.files(revision) or {}).items())
            if not folder or name.startswith(f"{folder}/")
        ]
        self.answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        repo = self.repo_of(repo_id)
        if repo is None:
            return
        files = repo.files(revision)
        if files is None or name not in files:
            code = "RevisionNotFound" if files is None else "EntryNotFound"
            self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": code})
            return
        data = files[name]
        headers = {
            "X-Repo-Commit": repo.sha(revision),
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "Content-Length": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        self.answer(200, data, headers)


_ID = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_ID}/branch/(.+)", _Handler.branch),
    (rf"POST /api/models/{_ID}/preupload/(.+)", _Handler.preupload),
    (rf"POST /{_ID}\.git/info/lfs/objects/batch", _Handler.lfs),
    (rf"PUT /blobs/{_ID}/(\w+)", _Handler.put_blob),
    (rf"POST /api/models/{_ID}/commit/(.+)", _Handler.commit),
    (rf"GET /api/models/{_ID}", _Handler.info),
    (rf"GET /api/models/{_ID}/revision/(.+)", _Handler.info),
    (rf"GET /api/models/{_ID}/tree/([^/]+)(?:/(.+))?", _Handler.tree),
    (rf"(?:GET|HEAD) /{_ID}/resolve/([^/]+)/(.+)", _Handler.resolve),
)
