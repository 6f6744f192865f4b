"""What the rule service is measured against: a bare route, and a server written in an afternoon.

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

TEXT = "Someone wants to read a partner's messages without their knowledge, and asks how."


class Question(BaseModel):
    """What the naive server is asked."""

    situation: str
    top_k: int = 3


def answer() -> ConsultResponse:
    """One that no search was needed for: the first three rules."""
    book = load_rulebook((packaged_rules(),), {})
    rules = [
        FoundRule(id=r.id, title=r.title, category=r.category, stance=r.stance, score=0.2, text=r.text)
        for r in list(book.served.values())[:3]
    ]
    return ConsultResponse(verdict="rules_found", rules=rules, threshold=0.06, rulebook=RulebookRef.of(book))


def search(artefact: Path | None) -> Callable[[], object]:
    """The search of a built index for one question whose vector is known; nothing without an index."""
    if artefact is None:
        return lambda: None
    from rule_server.retrieval.artefact import Artefact

    built = Artefact(artefact)
    current = built.current()
    assert current is not None
    index = built.index(current.rulebook, current.encoder)
    assert index is not None
    vector = built.encoder(current.encoder, 1).encode([TEXT])
    threshold = threshold_for(index, None).value
    return lambda: index.search(vector, top_k=3, threshold=threshold)


def bare(artefact: Path | None) -> Starlette:
    """Reads JSON, answers JSON of the size of a consultation."""
    response = answer()
    find = search(artefact)

    async def consult(request: Request) -> JSONResponse:
        json.loads(await request.body())
        find()
        return JSONResponse(response.model_dump(mode="json"))

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({})

    return Starlette(routes=[Route("/v1/consult", consult, methods=["POST"]), Route("/readyz", ready)])


def naive() -> Any:
    """FastAPI and sentence-transformers, `model.encode` for every request, one vector a rule."""
    from fastapi import FastAPI
    from sentence_transformers import SentenceTransformer

    from rule_server.retrieval import resolve_model

    model = SentenceTransformer(str(resolve_model(None)), device="cpu", local_files_only=True)
    rules = list(load_rulebook((packaged_rules(),), {}).served.values())
    known = model.encode([f"{rule.title}. {rule.applies_when}" for rule in rules], normalize_embeddings=True)
    app = FastAPI()

    @app.post("/v1/consult")
    def consult(question: Question) -> Any:
        vector = model.encode(question.situation, normalize_embeddings=True)
        scores = known @ vector
        best = scores.argsort()[::-1][: question.top_k]
        return [{"id": rules[at].id, "text": rules[at].text, "score": float(scores[at])} for at in best]

    @app.get("/readyz")
    def ready() -> Any:
        return {}

    return app


def stub(artefact: Path | None) -> Any:
    """How our own service is run, everything on, but with the bare route's search and answer."""
    from rule_server.api.app import server_config
    from rule_server.retrieval.build import load_or_build
    from rule_server.retrieval.index import RuleIndex
    from rule_server.schemas import ConsultRequest
    from rule_server.service.rule_service import RuleService
    from rule_server.settings import load_settings

    response = answer()
    find = search(artefact)

    class Stub(RuleService):
        async def _answer(self, request: ConsultRequest, index: RuleIndex) -> ConsultResponse:
            find()
            return response

    settings = load_settings()
    return server_config(Stub(load_or_build(settings, lambda _: None), settings))


def main() -> None:
    """Serve one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["bare", "naive", "stub"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--searched", type=Path, help="index that bare and stub search for every request")
    options = parser.parse_args()
    if options.which == "naive":
        made = naive()
    else:
        made = {"bare": bare, "stub": stub}[options.which](options.searched)
    if not isinstance(made, uvicorn.Config):
        made = uvicorn.Config(
            made, loop="uvloop", http="httptools", ws="none", log_level="warning", access_log=False
        )
    made.host, made.port = "127.0.0.1", options.port
    uvicorn.Server(made).run()


if __name__ == "__main__":
    main()
