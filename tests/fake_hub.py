"""The part of the Hugging Face hub's HTTP interface that an upload and a download need, on this machine."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"


class Hub(ThreadingHTTPServer):
    """repositories: by name their files and commits; failing: answers all uploads with this status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.sent: dict[str, bytes] = {}  # large files, by sha256
        self.failing = 0

    def head(self, name: str) -> str:
        """The hash of a repository's last commit."""
        return f"{self.commits.count(name):040x}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *about: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if length := self.headers.get("Content-Length"):
            return self.rfile.read(int(length))
        parts = []
        while size := int(self.rfile.readline(), 16):  # chunked
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.file(body=False)

    def file(self, body: bool = True) -> None:
        """A file of a repository, which changes its name with every commit."""
        name, _, place = self.path.lstrip("/").partition("/resolve/")
        if name not in self.server.repositories:
            return self.refuse("RepoNotFound")
        data = self.server.repositories[name].get(place.partition("/")[2].partition("?")[0])
        if data is None:
            return self.refuse("EntryNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.server.head(name))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            return self.file()
        name, _, rest = self.path.removeprefix("/api/models/").partition("/tree/")
        if not rest:
            name = name.partition("/revision/")[0]
            if name not in self.server.repositories:
                return self.refuse("RepoNotFound")
            return self.answer({"id": name, "sha": self.server.head(name), "siblings": []})
        files = self.server.repositories[name]
        self.answer([{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()])

    def do_PUT(self) -> None:
        data = self.body()
        if self.server.failing:
            return self.answer({"error": "no room"}, self.server.failing)
        if hashlib.sha256(data).hexdigest() != self.path.rpartition("/")[2]:
            return self.answer({"error": "another sha256"}, 400)
        self.server.sent[self.path.rpartition("/")[2]] = data
        self.answer({})

    def do_POST(self) -> None:
        body, place = self.body(), self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid user token."}, 401)
        if place == "/api/repos/create":
            return self.create(json.loads(body))
        if place == "/api/validate-yaml":
            return self.answer({})
        if place.endswith("/preupload/main"):
            mode = {True: "lfs", False: "regular"}
            files = [
                {"path": one["path"], "uploadMode": mode[one["path"].endswith(".safetensors")], "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if place.endswith("/objects/batch"):
            upload = {"transfer": "basic", "objects": []}
            for one in json.loads(body)["objects"]:
                href = {"href": f"{self.server.address}/lfs/{one['oid']}"}
                upload["objects"].append(one | {"actions": {"upload": href}})
            return self.answer(upload)
        name = place.removeprefix("/api/models/").removesuffix("/commit/main")
        self.commit(name, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.server.address}/{name}"}
        if name in self.server.repositories:
            return self.answer(address | {"error": "You already created this model repo"}, 409)
        self.server.created.append(asked)
        self.server.repositories[name] = {".gitattributes": b""}
        self.answer(address)

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.repositories[name])
        for line in lines:
            told = line["value"]
            if line["key"] == "file":
                files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                files[told["path"]] = self.server.sent[told["oid"]]
            elif line["key"] == "deletedFile":
                del files[told["path"]]
        self.server.repositories[name] = files
        self.server.commits.append(name)
        self.answer({"commitUrl": f"{self.server.address}/{name}/commit/1", "commitOid": "1"})


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that is served while this is entered."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
