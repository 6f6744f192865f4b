"""Servers to compare the rule service with: a bare route, and a naive implementation.

python -m benchmarks.rule_server.peer_apps bare|naive|stub --port 8000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rule_server.retrieval.index import threshold_for
from rule_server.rulebook import load_rulebook
from rule_server.schemas import ConsultResponse, FoundRule, RulebookRef
from rule_server.settings import packaged_rules

QUESTION_TEXT = "Someone wants to read a partner's messages without their knowledge, and asks how."


class Question(BaseModel):
    """Request of the naive server."""

    situation: str
    top_k: int = 3


def constant_response() -> ConsultResponse:
    """Returns a response with the first three rules, without a search."""
    book = load_rulebook((packaged_rules(),), {})
    rules = [
        FoundRule(id=r.id, title=r.title, category=r.category, stance=r.stance, score=0.2, text=r.text)
        for r in list(book.served.values())[:3]
    ]
    return ConsultResponse(verdict="rules_found", rules=rules, threshold=0.06, rulebook=RulebookRef.of(book))


def make_search(artefact: Path | None) -> Callable[[], object]:
    """Returns a function that searches an index with a precomputed vector; without an index it does
    nothing."""
    if artefact is None:
        return lambda: None
    from rule_server.retrieval.artefact import Artefact

    index_artefact = Artefact(artefact)
    current = index_artefact.current()
    assert current is not None
    index = index_artefact.index(current.rulebook, current.encoder)
    assert index is not None
    vector = index_artefact.encoder(current.encoder, 1).encode([QUESTION_TEXT])
    threshold = threshold_for(index, None).value
    return lambda: index.search(vector, top_k=3, threshold=threshold)


def bare_app(artefact: Path | None) -> Starlette:
    """Returns an app that parses the request and answers JSON of the size of a consultation."""
    response = constant_response()
    run_search = make_search(artefact)

    async def consult(request: Request) -> JSONResponse:
        json.loads(await request.body())
        run_search()
        return JSONResponse(response.model_dump(mode="json"))

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({})

    return Starlette(routes=[Route("/v1/consult", consult, methods=["POST"]), Route("/readyz", ready)])


def naive_app() -> Any:
    """Returns a FastAPI app that calls `model.encode` for every request, with one vector per rule."""
    from fastapi import FastAPI
    from sentence_transformers import SentenceTransformer

    from rule_server.retrieval import resolve_model

    model = SentenceTransformer(str(resolve_model(None)), device="cpu", local_files_only=True)
    rules = list(load_rulebook((packaged_rules(),), {}).served.values())
    vectors = model.encode(
        [f"{rule.title}. {rule.applies_when}" for rule in rules], normalize_embeddings=True
    )
    app = FastAPI()

    @app.post("/v1/consult")
    def consult(question: Question) -> Any:
        vector = model.encode(question.situation, normalize_embeddings=True)
        scores = vectors @ vector
        best = scores.argsort()[::-1][: question.top_k]
        return [{"id": rules[at].id, "text": rules[at].text, "score": float(scores[at])} for at in best]

    @app.get("/readyz")
    def ready() -> Any:
        return {}

    return app


def stub_service(artefact: Path | None) -> Any:
    """Returns the rule service with all features, but with the search and response of the bare route."""
    from rule_server.api.app import server_config
    from rule_server.retrieval.build import load_or_build
    from rule_server.retrieval.index import RuleIndex
    from rule_server.schemas import ConsultRequest
    from rule_server.service.rule_service import RuleService
    from rule_server.settings import load_settings

    response = constant_response()
    run_search = make_search(artefact)

    class StubService(RuleService):
        async def _answer(self, request: ConsultRequest, index: RuleIndex) -> ConsultResponse:
            run_search()
            return response

    settings = load_settings()
    return server_config(StubService(load_or_build(settings, lambda _: None), settings))


def main() -> None:
    """Serves one of the apps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["bare", "naive", "stub"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--searched", type=Path, help="index that bare and stub search on every request")
    options = parser.parse_args()
    if options.which == "naive":
        app = naive_app()
    else:
        app = {"bare": bare_app, "stub": stub_service}[options.which](options.searched)
    if not isinstance(app, uvicorn.Config):
        app = uvicorn.Config(
            app, loop="uvloop", http="httptools", ws="none", log_level="warning", access_log=False
        )
    app.host, app.port = "127.0.0.1", options.port
    uvicorn.Server(app).run()


if __name__ == "__main__":
    main()
