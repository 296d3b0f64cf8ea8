"""A stand-in for W&B's server, on this machine: what saving, loading and deleting a report asks of its GraphQL API.

Queries are checked and answered by graphql-core from a schema, so a field, an argument or a type that the schema lacks
is an error, as it is there. The schema is our own reading of the client's queries.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
    type User {
        id: ID!  name: String  username: String  email: String  admin: Boolean  flags: JSONString  entity: String
        deletedAt: DateTime  apiKeys: ApiKeyConnection  teams: TeamConnection
    }
    type Project {
        id: ID!  internalId: ID!  name: String!  entityName: String!  createdAt: DateTime!  isBenchmark: Boolean!
        description: String  access: String  views: JSONString  user: User
    }
    type ProjectEdge { node: Project }
    type ProjectConnection { pageInfo: PageInfo!  edges: [ProjectEdge!]! }
    type View {
        id: ID!  type: String!  name: String!  displayName: String  description: String  project: Project
        createdAt: DateTime!  updatedAt: DateTime!  spec: String!
    }
    type Query {
        viewer: User
        project(name: String!, entityName: String!): Project
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
    type Mutation { upsertView(input: UpsertViewInput!): UpsertView  deleteView(input: DeleteViewInput!): DeleteView }
""")
TIME = "2026-01-01T00:00:00Z"


@dataclass
class Root:
    """Its state, and the fields of ``Query`` and ``Mutation``: one user, and the projects that were put there."""

    projects: list[str]
    entity: str = "somebody"
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def viewer(self, info: object) -> dict[str, Any]:
        nobody: dict[str, Any] = {"edges": []}
        user = {"id": "VXNlcjox", "name": self.entity, "username": self.entity, "entity": self.entity, "flags": "{}"}
        return user | {"email": "", "admin": False, "teams": nobody, "apiKeys": nobody}

    def project(self, info: object, name: str, entityName: str) -> dict[str, Any] | None:
        if name not in self.projects or entityName != self.entity:
            return None
        number = str(1 + self.projects.index(name))
        return {"id": f"project{number}", "internalId": number, "name": name, "entityName": entityName,
                "createdAt": TIME, "isBenchmark": False}  # fmt: skip

    def models(self, info: object, entityName: str, first: int, after: str | None = None) -> dict[str, Any]:
        edges = [{"node": self.project(info, name, entityName)} for name in self.projects]
        return {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": edges}

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


@contextmanager
def serving(*projects: str) -> Iterator[tuple[str, Root]]:
    """The server while it runs: its address and its state."""
    root = Root(list(projects))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            root.asked.append(body.get("operationName") or body["query"].split("(")[0].split()[-1])
            done = graphql_sync(SCHEMA, body["query"], root, variable_values=body.get("variables"))
            answer = json.dumps(done.formatted).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", root
        finally:
            server.shutdown()
            thread.join()
