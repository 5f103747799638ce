"""As much of a W&B server as an export asks for, on loopback: it keeps runs, histories, artifact versions and edges.

It is no model of the real one: what that shows, refuses or limits is not here. What the client sends, and in which
order, is real. A line of a history takes the place that its offset names, and a client is told how many there are; an
artifact of a known digest is no new version, where the client asks for that.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = {"name": "me"}


@dataclass
class Server:
    address: str = ""
    runs: dict[str, Any] = field(default_factory=dict)  # id -> the first thing said of it
    histories: dict[str, dict[int, Any]] = field(default_factory=dict)  # id -> place -> row
    exits: dict[str, int] = field(default_factory=dict)  # id -> the exit code that it ended with
    versions: dict[str, Any] = field(default_factory=dict)  # artifact's id -> what was asked for
    edges: set[tuple[str, str]] = field(default_factory=set)  # (run, the artifact it uses)
    keys: set[str] = field(default_factory=set)

    def named(self, name: str) -> str | None:
        """The artifact that collection:alias names: the last that took the alias."""
        collection, _, alias = name.partition(":")
        found = None
        for number, asked in self.versions.items():
            aliases = {entry["alias"] for entry in asked["aliases"]}
            if asked["artifactCollectionName"] == collection and alias in aliases and asked["committed"]:
                found = number
        return found

    def answer(self, operation: str, given: Any) -> Any:
        handler = getattr(self, f"_{operation}", None)
        return {} if handler is None else handler(given)

    def _UpsertBucket(self, given: Any) -> Any:
        run = given["name"]
        fresh = run not in self.runs
        if given["displayName"]:  # a run begins
            self.runs[run] = given
            self.histories.setdefault(run, {})
        project = {"id": "P", "name": given["project"], "entity": {"id": "E", **OWNER}}
        bucket = {"id": f"B{run}", "name": run, "displayName": run, "description": "", "config": "{}"}
        bucket |= {"sweepName": None, "project": project, "historyLineCount": len(self.histories[run])}
        return {"upsertBucket": {"bucket": bucket, "inserted": fresh}}

    def _RunResumeStatus(self, given: Any) -> Any:
        run = given["name"]
        if run not in self.runs:
            return {"model": {"id": "P", "name": given["project"], "entity": {"id": "E", **OWNER}, "bucket": None}}
        rows = self.histories[run]
        tail = json.dumps([json.dumps(rows[max(rows)])] if rows else [])
        bucket = {
            "id": f"B{run}", "name": run, "displayName": run, "summaryMetrics": "{}", "logLineCount": 0,
            "historyLineCount": len(rows), "eventsLineCount": 0, "historyTail": tail, "eventsTail": "[]",
            "config": "{}", "tags": [], "notes": "", "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"model": {"id": "P", "name": given["project"], "entity": {"id": "E", **OWNER}, "bucket": bucket}}

    def _Viewer(self, given: Any) -> Any:
        viewer = {"id": "U", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def _ServerFeaturesQuery(self, given: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def _ArtifactType(self, given: Any) -> Any:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, given: Any) -> Any:
        asked = given["input"]
        same = [
            number
            for number, known in self.versions.items()
            if (known["artifactCollectionName"], known["digest"]) == (asked["artifactCollectionName"], asked["digest"])
        ]
        if same and asked["enableDigestDeduplication"]:
            number = same[0]
            self.versions[number]["aliases"] += asked["aliases"]
        else:
            number = f"A{len(self.versions)}"
            self.versions[number] = {**asked, "committed": False}
        state = "COMMITTED" if self.versions[number]["committed"] else "PENDING"
        latest = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": number, "state": state, "artifactSequence": latest}}}

    def _CreateArtifactManifest(self, given: Any) -> Any:
        file = {"id": "F", "uploadUrl": f"{self.address}/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": file}}}

    def _CreateArtifactFiles(self, given: Any) -> Any:
        nodes = [
            {
                "id": f"F{number}", "name": file["name"], "displayName": file["name"], "storagePath": "x/y",
                "uploadUrl": f"{self.address}/file", "uploadHeaders": [], "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for number, file in enumerate(given["input"]["artifactFiles"])
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, given: Any) -> Any:
        number = given["artifactID"]
        self.versions[number]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": number, "digest": self.versions[number]["digest"]}}}

    def _CreateRunFiles(self, given: Any) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.address}/file"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _ArtifactMembershipByName(self, given: Any) -> Any:
        number = self.named(given["name"])
        if number is None:
            return {"project": {"artifactCollectionMembership": None}}
        asked = self.versions[number]
        project = {"id": "P", "internalId": "1", "name": given["project"], "entity": OWNER}
        place = {"__typename": "ArtifactSequence", "name": asked["artifactCollectionName"], "project": project}
        now = "2026-01-01T00:00:00Z"
        artifact = {
            "__typename": "Artifact", "id": number, "artifactSequence": place, "versionIndex": 0,
            "artifactType": {"name": asked["artifactTypeName"]}, "description": None, "metadata": None,
            "ttlDurationSeconds": -1, "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED",
            "size": 1, "digest": asked["digest"], "commitHash": "0", "fileCount": 1, "createdAt": now, "updatedAt": now,
            "aliases": [],
        }  # fmt: skip
        member = {"__typename": "ArtifactCollectionMembership", "id": "C", "versionIndex": 0, "createdAt": now}
        member |= {"aliases": [], "artifactCollection": place, "artifact": artifact}
        return {"project": {"artifactCollectionMembership": member}}

    def _UseArtifact(self, given: Any) -> Any:
        asked = given.get("input", given)
        self.edges.add((asked["runName"], asked["artifactID"]))
        return {"useArtifact": {"artifact": {"id": asked["artifactID"]}}}


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *values: object) -> None:
            pass

        def do_PUT(self) -> None:
            self._body()
            self._send({})

        def do_POST(self) -> None:
            body, told = json.loads(self._body() or b"{}"), {}
            server.keys.add(self.headers.get("Authorization", ""))
            if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                part = body.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
                for number, line in enumerate(part["content"]):
                    server.histories[stream[1]][part["offset"] + number] = json.loads(line)
                if body.get("complete"):
                    server.exits[stream[1]] = body["exitcode"]
            elif operation := re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", "")):
                told = {"data": server.answer(operation[1], body.get("variables") or {})}
            self._send(told)

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _send(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as listening:
        listening.daemon_threads, listening.block_on_close = True, False
        listening.handle_error = lambda request, address: None  # type: ignore[method-assign]  # a client that hangs up
        server.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join(10.0)
