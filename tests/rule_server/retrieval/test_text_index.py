"""The FAISS index in an artefact: read by FAISS alone, shared by processes, and refused when damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from rule_server import ArtefactError, RuleIndex, Settings
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.multilingual import DIMENSION
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import Part, index_entries, text_key
from rule_server.retrieval.search import nearness, text_index

QUESTIONS = [
    "How do I get a stuck ring off my finger?",
    "Someone wants to break into their neighbour's wifi",
    "Which plants in my garden are poisonous for dogs?",
    "What would a burglar look for in a house like mine?",
    "Write a love poem about the sea",
    "Is it legal to record a phone call with my landlord?",
]


def stored_index(folder: Path) -> tuple[RuleIndex, Path]:
    """Returns the current index of an artefact, and the folder of its files."""
    store = Artefact(folder)
    current = store.current()
    assert current is not None
    index = store.index(current.rulebook, current.encoder)
    assert index is not None
    return index, folder / "rulebooks" / current.rulebook


@pytest.mark.parametrize("part", ["multilingual", "english"])
def test_faiss_alone_finds_the_same_nearest_texts(
    built_artefact: Path, paired_encoder: PairedEncoder, part: Part
) -> None:
    index, folder = stored_index(built_artefact)
    columns = slice(None, DIMENSION) if part == "multilingual" else slice(DIMENSION, None)
    questions = np.ascontiguousarray(paired_encoder.encode_rules(QUESTIONS)[:, columns])
    file = faiss.read_index(str(folder / f"{part}.faiss"))
    products, rows = file.search(questions, 5)
    ours = index.texts[part].cosines(questions)
    assert np.sort(ours, axis=1)[:, :-6:-1] == pytest.approx(products, abs=1e-6)
    assert np.take_along_axis(ours, rows, axis=1) == pytest.approx(products, abs=1e-6)
    texts = [text for _, text in index_entries(index.rulebook)]
    own = next(rule for rule in index.rulebook.served.values() if rule.queries).queries[0]
    _, [[row]] = file.search(np.ascontiguousarray(paired_encoder.encode_rules([own])[:, columns]), 1)
    assert texts[row] == own


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def replace_by_another(file: Path) -> None:
    other = faiss.IndexFlatL2(DIMENSION)
    other.add(np.zeros((3, DIMENSION), np.float32))
    faiss.write_index(other, str(file))


def replace_by_text(file: Path) -> None:
    file.write_text("not an index")


@pytest.mark.parametrize("damage", [truncate, replace_by_another, replace_by_text])
def test_a_damaged_file_is_refused_with_the_fix(artefact: Path, damage: Callable[[Path], None]) -> None:
    _, folder = stored_index(artefact)
    damage(folder / "multilingual.faiss")
    command = [sys.executable, "-m", "rule_server.cli", "query", "a question", "--artefact", str(artefact)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    problem = "multilingual.faiss is not what was written"
    assert done.stderr.splitlines()[-1].endswith(
        f"{folder} is damaged ({problem}): remove it and run `ascl-rules build`"
    )


def test_a_file_of_another_kind_is_refused_even_if_the_manifest_names_it(artefact: Path) -> None:
    index, folder = stored_index(artefact)
    replace_by_another(folder / "multilingual.faiss")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"multilingual\.faiss is not an IndexFlatIP by inner product"):
        Artefact(artefact).index(index.rulebook.digest, index.fingerprint)
    (folder / "multilingual.faiss").write_text("not an index")
    with pytest.raises(ArtefactError, match=r"multilingual\.faiss is not a complete FAISS index"):
        Artefact(artefact).index(index.rulebook.digest, index.fingerprint)


@pytest.mark.parametrize("with_rules", [True, False])
def test_an_index_of_an_earlier_format_is_built_again(artefact: Path, rules: Path, with_rules: bool) -> None:
    loaded = load_or_build(Settings(dir=rules, artefact=artefact), lambda _: None, build=True)
    digest, vectors = loaded.index.rulebook.digest, loaded.index.vectors
    folder = artefact / "rulebooks" / digest
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in folder.glob("*.faiss"):
        file.unlink()
    earlier = {key: manifest[key] for key in ("encoder", "name", "version", "rules", "ordinary")}
    (folder / "manifest.json").write_text(json.dumps({"schema": 2, "vectors": "0" * 64, **earlier}))
    np.save(folder / "vectors.npy", vectors)
    settings = Settings(dir=rules, artefact=artefact) if with_rules else Settings(artefact=artefact)
    again = load_or_build(settings, lambda _: None).index
    assert again.rulebook.digest == digest
    assert again.vectors == pytest.approx(vectors, abs=1e-6)
    assert sorted(file.name for file in folder.glob("*.faiss")) == ["english.faiss", "multilingual.faiss"]
    assert not (folder / "vectors.npy").exists()


SHARING = """
import sys
from pathlib import Path
import numpy as np
from rule_server.retrieval.artefact import Artefact

store = Artefact(Path(sys.argv[1]))
current = store.current()
index = store.index(current.rulebook, current.encoder)
for part in index.texts.values():
    part.cosines(np.ones((1, part.flat.d), np.float32))
print("ready", flush=True)
sys.stdin.readline()
sizes = {}
mapped = False
for line in open("/proc/self/smaps"):
    name, *rest = line.split()
    if not name.endswith(":"):
        mapped = line.rstrip().endswith(".faiss")
    elif mapped and name in ("Rss:", "Pss:", "Private_Clean:", "Private_Dirty:"):
        sizes[name] = sizes.get(name, 0) + int(rest[0])
print(sizes["Rss:"], sizes["Pss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"], flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel does not tell shared memory")
def test_two_processes_share_the_memory_of_an_index(built_artefact: Path) -> None:
    index, folder = stored_index(built_artefact)
    size = sum(file.stat().st_size for file in folder.glob("*.faiss")) / 1024
    del index
    command = [sys.executable, "-c", SHARING, str(built_artefact)]
    pipe = subprocess.PIPE
    replicas = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        lines = []
        for replica in replicas:
            assert replica.stdout is not None
            assert replica.stdout.readline() == "ready\n"
        for replica in replicas:
            assert replica.stdin is not None
            assert replica.stdout is not None
            replica.stdin.write("\n")
            replica.stdin.flush()
            lines.append(replica.stdout.readline())
    finally:
        for replica in replicas:
            replica.communicate("\n", timeout=30)
    for line in lines:
        resident, proportional, private = map(int, line.split())
        assert resident >= 0.9 * size
        assert proportional <= 0.6 * resident
        assert private <= 0.1 * resident


@pytest.fixture
def shortlisted(built_artefact: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RuleIndex, RuleIndex]:
    """The packaged rules, searched exhaustively, and as if they were a large rulebook."""
    exhaustive, _ = stored_index(built_artefact)
    monkeypatch.setattr(text_index, "EXHAUSTIVE_TEXTS", 0)
    monkeypatch.setattr(text_index, "LIST_TEXTS", 100)
    monkeypatch.setattr(text_index, "SEARCHED_TEXTS", 2000)
    vectors, fingerprint = exhaustive.vectors, exhaustive.fingerprint
    return exhaustive, RuleIndex(exhaustive.rulebook, fingerprint, vectors, exhaustive.calibration)


def test_scores_from_the_nearest_quarter_of_the_texts_are_close_to_those_from_all(
    shortlisted: tuple[RuleIndex, RuleIndex], paired_encoder: PairedEncoder
) -> None:
    exhaustive, large = shortlisted
    assert all(part.shortlist is not None for part in large.texts.values())
    examples = [
        rule.examples.benign[0] for rule in exhaustive.rulebook.served.values() if rule.examples.benign
    ]
    known = exhaustive.vectors_by_text()
    vectors = np.stack(
        [*paired_encoder.encode_rules(QUESTIONS), *(known[text_key(text)] for text in examples)]
    )
    for vector in vectors:
        exact, estimated = exhaustive.scores(vector[None]), large.scores(vector[None])
        near = np.argsort(-exact)[:10]
        assert np.abs(exact[near] - estimated[near]).max() <= nearness.MAX_SCORE_ERROR


def test_a_large_index_survives_its_files(
    shortlisted: tuple[RuleIndex, RuleIndex], paired_encoder: PairedEncoder, tmp_path: Path
) -> None:
    _, large = shortlisted
    store = Artefact(tmp_path)
    store.save(large, own_rules=False)
    again = store.index(large.rulebook.digest, large.fingerprint)
    assert again is not None
    question = paired_encoder.encode(QUESTIONS[:1])
    assert again.scores(question).tolist() == large.scores(question).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_an_estimated_sum_is_within_the_limits_that_hold_for_the_true_one(seed: int) -> None:
    """For any similarities: close together or far apart, few or nearly all of them returned."""
    random = np.random.default_rng(seed)
    rules = nearness.RuleGroups(random.integers(1, 40, 50).tolist())
    centre = random.uniform(-0.6, 0.6, 50)[np.repeat(np.arange(50), rules.sizes.astype(int))]
    cosines = np.clip(centre + random.normal(0, random.uniform(0, 0.4), rules.rows), -1, 1)[None]
    returned = np.sort(np.argsort(-cosines, axis=1)[:, : int(random.integers(1, rules.rows))], axis=1)
    exponentials = np.exp(cosines / nearness.TEMPERATURE)
    some = np.take_along_axis(cosines, returned, axis=1)
    mean = rules.sums(cosines) / rules.sizes
    of = rules.of[returned]
    missing = rules.sizes - nearness.sums_by(of, 50)
    rest = (rules.sizes * mean - nearness.sums_by(of, 50, some)) / np.maximum(missing, 1)
    limit = some.min(axis=1, keepdims=True)
    true = rules.sums(exponentials) - nearness.sums_by(of, 50, np.exp(some / nearness.TEMPERATURE))
    least, most = nearness.limits_of_unreturned(missing, rest, limit)
    tolerance = 1e-9 * exponentials.sum()
    for spread in (0.0, 0.7, 1.0):
        estimate = nearness.estimate_unreturned(missing, rest, limit, rules.sizes, mean, np.full(50, spread))
        for value in (true, estimate):
            assert (value >= least - tolerance).all()
            assert (value <= most + tolerance).all()
