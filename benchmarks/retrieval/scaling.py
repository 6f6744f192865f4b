"""Measures how the cost of a question, the memory and the start of the service grow with the rulebook.

    python -m benchmarks.retrieval.scaling --artefact ARTEFACT [--draw docs/images/scaling.png]

The made-up rules are copies of the packaged ones with other words; the vector of each text is that of the
original text with noise, so no text is embedded. The questions are the packaged evaluation prompts and are
embedded by both encoders. Each size starts in a separate process, from a built artefact. Times are CPU times,
because other programs may share the cores; wall-clock times are given beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.encoders.paired import split_vectors
from rule_server.retrieval.index import RuleIndex, index_entries, text_key
from rule_server.retrieval.search.text_index import TextIndex
from rule_server.rulebook import Rule, Rulebook
from rule_server.settings import Settings

SIZES = (100, 1_000, 10_000)
NOISE = 0.6
"""Length of the noise that is added to a vector of length 1."""
PROMPTS = Path(__file__).resolve().parents[2] / "evaluation" / "prompts"
EXACT_QUESTIONS = 24


def made_up_rule(original: Rule, number: int) -> Rule:
    """Returns a copy of a rule with a number in its id and in each of its texts."""
    mark = f" ({number})"
    examples = original.examples
    return original.model_copy(
        update={
            "id": f"{original.id}-{number}",
            "title": original.title + mark,
            "queries": [text + mark for text in original.queries],
            "examples": examples.model_copy(
                update={
                    "benign": [text + mark for text in examples.benign],
                    "harmful": [text + mark for text in examples.harmful],
                }
            ),
        }
    )


def made_up_rulebook(packaged: Rulebook, count: int) -> Rulebook:
    """Returns a rulebook of `count` rules in the packaged categories."""
    served = list(packaged.served.values())
    rules = [made_up_rule(served[number % len(served)], number) for number in range(count)]
    rules.sort(key=lambda rule: rule.id)
    return Rulebook(name="made-up", version="1.0.0", categories=packaged.categories, rules=rules)


def made_up_vectors(packaged: RuleIndex, rulebook: Rulebook) -> Any:
    """Returns the vectors of a made-up rulebook's texts, each encoder's part of length 1 or 0."""
    random = np.random.default_rng(0)
    known = packaged.vectors_by_text()
    rows = []
    for id, text in index_entries(rulebook):
        number = f" ({id.rpartition('-')[2]})"
        rows.append(known[text_key(text.replace(number, "") if id else text)])
    vectors = np.stack(rows)
    everyday = sum(1 for id, _ in index_entries(rulebook) if not id)
    for part in split_vectors(vectors[:-everyday], packaged.fingerprint):
        assert part is not None
        known_part = np.asarray(part.any(axis=1, keepdims=True))
        for start in range(0, len(part), 10_000):
            block = part[start : start + 10_000]
            noise = random.standard_normal(block.shape, dtype=np.float32) * NOISE / block.shape[1] ** 0.5
            block += np.where(known_part[start : start + 10_000], noise, 0)
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-9)
    return vectors


def questions() -> list[str]:
    """Returns the packaged evaluation prompts."""
    files = [PROMPTS / name for name in ("held_out.jsonl", "train.jsonl")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [str(json.loads(line)["prompt"]) for line in lines]


class CountingEncoder:
    """Returns a vector for any text, and counts the texts."""

    def __init__(self, fingerprint: str, dimension: int) -> None:
        self.fingerprint, self._dimension, self.encoded = fingerprint, dimension, 0

    def encode(self, texts: Sequence[str]) -> Any:
        self.encoded += len(texts)
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).standard_normal(self._dimension) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def timed(work: Callable[[], Any], repeats: int = 1) -> dict[str, float]:
    """Returns the median CPU time and the minimum wall-clock time, in milliseconds."""
    cpu, wall = [], []
    for _ in range(repeats):
        before, start = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - before)
        wall.append(time.perf_counter() - start)
    return {"cpu_ms": round(float(np.median(cpu)) * 1e3, 2), "wall_ms": round(min(wall) * 1e3, 2)}


def serve(folder: Path) -> dict[str, Any]:
    """Starts from an artefact and answers questions. Runs in a separate process."""
    from rule_server.retrieval.build import load_or_build

    start = time.perf_counter()
    loaded = load_or_build(Settings(artefact=folder, watch=False, threads=1), print)
    index, prompts = loaded.index, questions()
    index.scores(loaded.encoder.encode(prompts[:1]))
    started = {"wall_s": round(time.perf_counter() - start, 2), "cpu_s": round(time.process_time(), 2)}
    vectors = loaded.encoder.encode(prompts)
    for vector in vectors[:5]:
        index.scores(vector[None])
    scored = [timed(partial(index.scores, vectors[at : at + 1])) for at in range(len(prompts))]
    encoded = [timed(partial(loaded.encoder.encode, [text])) for text in prompts]
    smaps = Path("/proc/self/smaps_rollup").read_text()
    memory = {line.split()[0].rstrip(":"): int(line.split()[1]) // 1024 for line in smaps.splitlines()[1:]}
    return {
        "start": started,
        "search_ms": round(float(np.median([one["cpu_ms"] for one in scored])), 2),
        "search_wall_ms": round(min(one["wall_ms"] for one in scored), 2),
        "embedding_ms": round(float(np.median([one["cpu_ms"] for one in encoded])), 2),
        "resident_MB": memory["Rss"],
        "own_MB": memory["Private_Dirty"],
    }


def score_differences(index: RuleIndex, vectors: Any) -> dict[str, float]:
    """Compares the scores of the ten best rules with those from all texts."""
    texts = {name: TextIndex(part.flat, None) for name, part in index.texts.items()}
    exhaustive = RuleIndex(index.rulebook, index.fingerprint, texts)
    differences, same = [], []
    for vector in vectors:
        exact, ours = exhaustive.scores(vector[None]), index.scores(vector[None])
        best = np.argsort(-exact)[:10]
        differences.append(np.abs(exact - ours)[best])
        same.append(exact.argmax() == ours.argmax())
    values = np.concatenate(differences)
    return {
        "mean": round(float(values.mean()), 4),
        "max": round(float(values.max()), 4),
        "same_first_rule": round(float(np.mean(same)), 3),
    }


def edit(index: RuleIndex) -> dict[str, Any]:
    """Rewords all queries of one rule, and embeds the edited rulebook."""
    rules = list(index.rulebook.rules)
    at = len(rules) // 2
    rules[at] = rules[at].model_copy(update={"queries": [f"reworded {q}" for q in rules[at].queries]})
    book = index.rulebook
    edited = Rulebook(name=book.name, version="1.0.1", categories=book.categories, rules=rules)
    encoder = CountingEncoder(index.fingerprint, sum(part.flat.d for part in index.texts.values()))
    work = timed(lambda: RuleIndex.build(edited, encoder, index.vectors_by_text()))
    return {"reworded": len(rules[at].queries), "embedded": encoder.encoded, **work}


def measure(artefact: Path, count: int, folder: Path) -> dict[str, Any]:
    """Builds an artefact of `count` made-up rules, and measures a service that starts from it."""
    store, target = Artefact(artefact), Artefact(folder)
    current = store.current()
    packaged = store.index(current.rulebook, current.encoder) if current is not None else None
    if current is None or packaged is None:
        raise SystemExit(
            f"scaling: {artefact} has no index: `ascl-rules build --artefact {artefact}` makes one"
        )
    shutil.copytree(store.encoder_folder(current.encoder), target.encoder_folder(current.encoder))
    book = made_up_rulebook(packaged.rulebook, count)
    index = RuleIndex(book, current.encoder, made_up_vectors(packaged, book))
    target.save(index, own_rules=False)
    figures: dict[str, Any] = {"rules": count, "texts": len(index)}
    questions_encoded = store.encoder(current.encoder, 1).encode(questions()[:EXACT_QUESTIONS])
    figures["difference"] = score_differences(index, questions_encoded)
    figures["edit"] = edit(index)
    del index
    files = (folder / "rulebooks" / book.digest).glob("*.faiss")
    figures["files_MB"] = round(sum(file.stat().st_size for file in files) / 2**20)
    command = [sys.executable, "-m", "benchmarks.retrieval.scaling", "--serve", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    served: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures | served


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draws the time of a question, the memory and the start by number of rules."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [row["rules"] for row in rows]
    figure, (question, memory, start) = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    embedding = [row["embedding_ms"] for row in rows]
    question.plot(sizes, embedding, "o-", label="embedding")
    total = [row["embedding_ms"] + row["search_ms"] for row in rows]
    question.plot(sizes, total, "s-", label="embedding and search")
    question.set(title="CPU time of a question", ylabel="ms", xscale="log", xlabel="rules", ylim=0)
    question.legend()
    memory.plot(sizes, [row["files_MB"] for row in rows], "o-", label="files, shared by processes")
    memory.plot(sizes, [row["own_MB"] for row in rows], "s-", label="of each process")
    memory.set(title="Memory", ylabel="MB", xscale="log", xlabel="rules", ylim=0)
    memory.legend()
    start.plot(sizes, [row["start"]["cpu_s"] for row in rows], "o-")
    start.set(title="CPU time of a start", ylabel="s", xscale="log", xlabel="rules", ylim=0)
    for panel in (question, memory, start):
        panel.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artefact", type=Path, help="built artefact of the packaged rules")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of rules")
    parser.add_argument("--draw", type=Path, help="file for a picture")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        print(json.dumps(serve(options.serve)))
        return
    if options.artefact is None:
        parser.error("--artefact is missing: `ascl-rules build --artefact FOLDER` makes one")
    rows = []
    for count in options.sizes:
        with tempfile.TemporaryDirectory(prefix="ascl-scaling-") as folder:
            rows.append(measure(options.artefact, count, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    if options.draw is not None:
        draw(rows, options.draw)


if __name__ == "__main__":
    main()
