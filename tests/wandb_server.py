"""A stand-in for W&B's server, on this machine: what its client asks when it sends runs, and when it saves, loads and
deletes a report.

Queries are checked and answered by graphql-core from a schema, so a field, an argument or a type that the schema lacks
is an error, as it is there. The schema is our own reading of the client's queries. What else the server does with what
it gets is not known to us: it is kept as it comes, line by line and file by file, with every call that was made.
"""

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from graphql import GraphQLError, build_schema, graphql_sync

SCHEMA = build_schema("""
    scalar JSONString
    scalar DateTime
    type PageInfo { endCursor: String  hasNextPage: Boolean! }
    type ApiKey { id: ID!  name: String  description: String }
    type ApiKeyEdge { node: ApiKey }
    type ApiKeyConnection { edges: [ApiKeyEdge!]! }
    type Team { name: String! }
    type TeamEdge { node: Team }
    type TeamConnection { edges: [TeamEdge!]! }
    type Feature { name: String!  isEnabled: Boolean! }
    type ServerInfo { features: [Feature!]! }
    type Entity { id: ID!  name: String! }
    type User {
        id: ID!  name: String  username: String  email: String  admin: Boolean  flags: JSONString  entity: String
        deletedAt: DateTime  apiKeys: ApiKeyConnection  teams: TeamConnection
    }
    type Project {
        id: ID!  internalId: ID!  name: String!  entityName: String!  createdAt: DateTime!  isBenchmark: Boolean!
        description: String  access: String  views: JSONString  user: User  entity: Entity!
        bucket(name: String!, missingOk: Boolean): Run
    }
    type ProjectEdge { node: Project }
    type ProjectConnection { pageInfo: PageInfo!  edges: [ProjectEdge!]! }
    type View {
        id: ID!  type: String!  name: String!  displayName: String  description: String  project: Project
        createdAt: DateTime!  updatedAt: DateTime!  spec: String!
    }
    type Run {
        id: ID!  name: String!  displayName: String  description: String  config: JSONString  sweepName: String
        project: Project!  tags: [String!]  notes: String  summaryMetrics: JSONString
        wandbConfig(keys: [String!]): JSONString  historyLineCount: Int  eventsLineCount: Int  logLineCount: Int
        historyTail: JSONString  eventsTail: JSONString
    }
    type Query {
        viewer: User
        serverInfo: ServerInfo
        project(name: String!, entityName: String!): Project
        model(name: String, entityName: String): Project
        models(entityName: String, after: String, first: Int): ProjectConnection
        view(id: ID!): View
    }
    enum ViewSource { WANDB_SDK WANDB_UI }
    input UpsertViewInput {
        id: ID  entityName: String  projectName: String  name: String  displayName: String  description: String
        type: String  createdUsing: ViewSource  spec: String
    }
    type UpsertView { view: View  inserted: Boolean }
    input DeleteViewInput { id: ID!  deleteDrafts: Boolean }
    type DeleteView { success: Boolean  pendingDrafts: [ID!] }
    input UpsertBucketInput {
        id: String  name: String  groupName: String  modelName: String  entityName: String  description: String
        displayName: String  notes: String  config: JSONString  commit: String  host: String  debug: Boolean
        jobProgram: String  jobRepo: String  jobType: String  state: String  sweep: String  tags: [String!]
        summaryMetrics: JSONString
    }
    type UpsertBucket { bucket: Run  inserted: Boolean }
    input CreateRunFilesInput { entityName: String!  projectName: String!  runName: String!  files: [String!]! }
    type RunFile { name: String!  uploadUrl: String }
    type CreateRunFiles { runID: ID!  uploadHeaders: [String!]!  files: [RunFile!]! }
    input ArtifactAliasInput { artifactCollectionName: String!  alias: String! }
    input TagInput { tagName: String! }
    enum ArtifactDigestAlgorithm { MANIFEST_MD5 MANIFEST_XXH128 }
    input CreateArtifactInput {
        aliases: [ArtifactAliasInput!]  artifactCollectionName: String  artifactCollectionNames: [String!]
        artifactTypeName: String!  clientID: ID  clientMutationId: String  description: String  digest: String!
        digestAlgorithm: ArtifactDigestAlgorithm  distributedID: String  enableDigestDeduplication: Boolean
        entityName: String!  historyStep: Int  labels: JSONString  metadata: JSONString  projectName: String!
        runName: String  sequenceClientID: ID  storageRegion: String  tags: [TagInput!]  ttlDurationSeconds: Int
    }
    type ArtifactSequence { latestArtifact: Artifact }
    type Artifact { id: ID!  state: String!  digest: String!  artifactSequence: ArtifactSequence! }
    type CreateArtifactPayload { artifact: Artifact! }
    enum ArtifactManifestType { FULL INCREMENTAL PATCH }
    input CreateArtifactManifestInput {
        artifactID: ID!  baseArtifactID: ID  name: String!  digest: String!  entityName: String!  projectName: String!
        runName: String!  type: ArtifactManifestType!
    }
    type File {
        id: ID!  storagePath: String  uploadUrl: String  uploadHeaders: [String!]  artifact: Artifact
        uploadMultipartUrls: MultipartUrls
    }
    type MultipartUrls { uploadID: ID!  uploadUrlParts: [UrlPart!]! }
    type UrlPart { partNumber: Int!  uploadUrl: String! }
    type ArtifactManifest { id: ID!  file: File! }
    type CreateArtifactManifest { artifactManifest: ArtifactManifest! }
    input UploadPartsInput { partNumber: Int!  hexMD5: String! }
    input CreateArtifactFileSpecInput {
        artifactID: ID!  artifactManifestID: ID  md5: String!  mimetype: String  name: String!
        uploadPartsInput: [UploadPartsInput!]
    }
    enum ArtifactStorageLayout { V1 V2 }
    input CreateArtifactFilesInput {
        artifactFiles: [CreateArtifactFileSpecInput!]!  storageLayout: ArtifactStorageLayout  clientMutationId: String
        cloudRegionID: ID
    }
    type FileEdge { node: File }
    type FileConnection { edges: [FileEdge!]! }
    type CreateArtifactFiles { files: FileConnection! }
    input CommitArtifactInput { artifactID: ID! }
    type CommitArtifact { artifact: Artifact! }
    type Mutation {
        upsertView(input: UpsertViewInput!): UpsertView  deleteView(input: DeleteViewInput!): DeleteView
        upsertBucket(input: UpsertBucketInput!): UpsertBucket
        createRunFiles(input: CreateRunFilesInput!): CreateRunFiles
        createArtifact(input: CreateArtifactInput!): CreateArtifactPayload
        createArtifactManifest(input: CreateArtifactManifestInput!): CreateArtifactManifest
        createArtifactFiles(input: CreateArtifactFilesInput!): CreateArtifactFiles
        commitArtifact(input: CommitArtifactInput!): CommitArtifact
    }
""")
TIME = "2026-01-01T00:00:00Z"
KEY = 40 * "0"  # who shows it is logged in
HISTORY, EVENTS, SUMMARY = "wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json"


@dataclass
class Run:
    """A run as it came: the newest of what was said of it, its lines, its files, and how each of its parts ended."""

    name: str
    project: str
    said: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exits: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(HISTORY, [])]

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.lines.get(SUMMARY, ["{}"])[-1]))

    @property
    def config(self) -> dict[str, Any]:
        return {key: one["value"] for key, one in json.loads(self.said.get("config", "{}")).items()}

    def take(self, stream: dict[str, Any]) -> None:
        """Put lines where they say that they belong; a history has neither gaps nor lines that are written over."""
        for name, chunk in stream.get("files", {}).items():
            lines, start = self.lines.setdefault(name, []), chunk["offset"]
            assert name != HISTORY or start == len(lines), f"line {start} after {len(lines)}"
            lines[start : start + len(chunk["content"])] = chunk["content"]
        if stream.get("complete"):
            self.exits.append(stream["exitcode"])

    def node(self, project: dict[str, Any] | None) -> dict[str, Any]:
        history, events = self.lines.get(HISTORY, []), self.lines.get(EVENTS, [])
        started = self.config.get("_wandb", {})
        return {
            "id": f"Run:{self.name}", "name": self.name, "displayName": self.said.get("displayName"), "tags": [],
            "project": project, "config": self.said.get("config"), "summaryMetrics": json.dumps(self.summary),
            "wandbConfig": json.dumps({"t": started["t"]} if started else {}), "logLineCount": 0,
            "historyLineCount": len(history), "historyTail": json.dumps(history[-1:]),
            "eventsLineCount": len(events), "eventsTail": json.dumps(events[-1:]),
        }  # fmt: skip


@dataclass
class Artifact:
    """Files under one name; a table is one."""

    run: str
    name: str
    digest: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Root:
    """Its state, and the fields of ``Query`` and ``Mutation``: one user, and the projects that were put there."""

    projects: list[str]
    address: str = ""
    owner: str = "somebody"
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def viewer(self, info: object) -> dict[str, Any]:
        nobody: dict[str, Any] = {"edges": []}
        user = {"id": "VXNlcjox", "name": self.owner, "username": self.owner, "entity": self.owner, "flags": "{}"}
        return user | {"email": "", "admin": False, "teams": nobody, "apiKeys": nobody}

    def serverInfo(self, info: object) -> dict[str, Any]:
        return {"features": []}

    def project(self, info: object, name: str, entityName: str | None = None) -> dict[str, Any] | None:
        if name not in self.projects or entityName not in (None, self.owner):
            return None
        number = str(1 + self.projects.index(name))
        return {"id": f"project{number}", "internalId": number, "name": name, "entityName": self.owner,
                "createdAt": TIME, "isBenchmark": False, "entity": {"id": "entity1", "name": self.owner},
                "bucket": self.bucket}  # fmt: skip

    model = project

    def models(self, info: object, entityName: str, first: int, after: str | None = None) -> dict[str, Any]:
        edges = [{"node": self.project(info, name, entityName)} for name in self.projects]
        return {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": edges}

    # --- reports -----------------------------------------------------------------------------------------------------

    def view(self, info: object, id: str) -> dict[str, Any] | None:
        return self.views.get(id)

    def upsertView(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        project = self.project(info, input["projectName"], input["entityName"])
        if project is None or (input.get("id") and input["id"] not in self.views):
            raise GraphQLError("no such project, or no such view")
        new = base64.b64encode(f"View:{len(self.views) + 1:04d}".encode()).decode()
        view = {"id": input.get("id") or new, "createdAt": TIME, "updatedAt": TIME, "project": project}
        self.views[view["id"]] = input | view
        self.saved.append(self.views[view["id"]])
        return {"view": self.views[view["id"]], "inserted": input.get("id") is None}

    def deleteView(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        return {"success": self.views.pop(input["id"], None) is not None, "pendingDrafts": None}

    # --- runs --------------------------------------------------------------------------------------------------------

    def bucket(self, info: object, name: str, missingOk: bool = False) -> dict[str, Any] | None:
        run = self.runs.get(name)
        return run and run.node(self.project(info, run.project))

    def upsertBucket(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        name, project = input["name"], input["modelName"]
        self.projects += [project] * (project not in self.projects)
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name, project))
        run.said |= {key: value for key, value in input.items() if value is not None}
        return {"bucket": self.bucket(info, name), "inserted": inserted}

    def createRunFiles(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        run, names = input["runName"], input["files"]
        files = [{"name": name, "uploadUrl": self.place("run", run, name)} for name in names]
        return {"runID": f"Run:{run}", "uploadHeaders": [], "files": files}

    def createArtifact(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(Artifact(input["runName"], input["artifactCollectionName"], input["digest"]))
        return {"artifact": self.artifact(len(self.artifacts) - 1)}

    def commitArtifact(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[int(input["artifactID"])].state = "COMMITTED"
        return {"artifact": self.artifact(input["artifactID"])}

    def createArtifactManifest(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        return {"artifactManifest": {"id": input["artifactID"], "file": self.file(input["artifactID"], input["name"])}}

    def createArtifactFiles(self, info: object, input: dict[str, Any]) -> dict[str, Any]:
        nodes = [self.file(one["artifactID"], one["name"]) for one in input["artifactFiles"]]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def artifact(self, number: str | int) -> dict[str, Any]:
        one = self.artifacts[int(number)]
        return {"id": number, "state": one.state, "digest": one.digest, "artifactSequence": {"latestArtifact": None}}

    def file(self, artifact: str, name: str) -> dict[str, Any]:
        address = self.place("artifact", artifact, name)
        return {"id": address, "storagePath": name, "uploadUrl": address, "uploadHeaders": [],
                "artifact": self.artifact(artifact), "uploadMultipartUrls": None}  # fmt: skip

    def place(self, *words: str) -> str:
        """Where a file is to be put."""
        return "/".join([self.address, *(quote(word, safe="") for word in words)])

    # --- what comes in -----------------------------------------------------------------------------------------------

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/file_stream"):
            self.asked.append("file_stream")
            self.runs[path.split("/")[-2]].take(body)
            return {}
        self.asked.append(body.get("operationName") or body["query"].split("(")[0].split()[-1])
        done = graphql_sync(SCHEMA, body["query"], self, variable_values=body.get("variables"))
        self.wrong += [f"{self.asked[-1]}: {error.message}" for error in done.errors or []]
        return dict(done.formatted)

    def put(self, path: str, content: bytes) -> dict[str, Any]:
        kind, owner, name = (unquote(word) for word in path.split("/")[1:])
        self.asked.append(f"put {kind}")
        files = self.runs[owner].files if kind == "run" else self.artifacts[int(owner)].files
        files[name] = content
        return {}


def surroundings(address: str, home: Path) -> dict[str, str]:
    """The environment of a process to which the stand-in is W&B; its home holds no key, whoever runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    own = {"HOME": str(home), "NETRC": str(home / "netrc"), "WANDB_BASE_URL": address, "WANDB_ERROR_REPORTING": "false",
           "WANDB_CONFIG_DIR": str(home), "WANDB_CACHE_DIR": str(home), "OMP_NUM_THREADS": "1"}  # fmt: skip
    return kept | own


class Server(ThreadingHTTPServer):
    """As many connections may wait as the client opens: one that is reset is tried again, a second later."""

    request_queue_size = 1024


@contextmanager
def serving(*projects: str) -> Iterator[tuple[str, Root]]:
    """The server while it runs: its address and its state."""
    root, lock = Root(list(projects)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.answer(lambda content: root.post(self.path, json.loads(content)))

        def do_PUT(self) -> None:
            self.answer(lambda content: root.put(self.path, content))

        def answer(self, react: Callable[[bytes], dict[str, Any]]) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                try:
                    status, found = 200, react(content)
                except Exception as error:  # the client is told, and so is the test
                    root.wrong.append(f"{self.path}: {error!r}")
                    status, found = 400, {"error": str(error)}
            answer = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        root.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield root.address, root
        finally:
            server.shutdown()
            thread.join()
