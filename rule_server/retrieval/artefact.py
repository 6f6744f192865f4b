"""The index artefact: a folder from which the service starts without torch and without the rules folder.

    artefact.json             the current encoder and rulebook
    encoder/<fingerprint>/    model.onnx, model.rounded.onnx, tokenizer.json, manifest.json of the English
                              encoder
    rulebooks/<digest>/       rulebook.json (canonical), the FAISS indexes of its texts, manifest.json; the
                              marks published (by `build`) and served (was current once),
                              and one mark for the rules folders of each service that served it

Folders are written under a temporary name and renamed, so a reader finds a complete folder or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rule_server.errors import ArtefactError, EncoderError
from rule_server.retrieval.background import background_digest
from rule_server.retrieval.encoders.e5 import E5Encoder
from rule_server.retrieval.encoders.multilingual import MultilingualEncoder
from rule_server.retrieval.encoders.onnx import INT8_MODEL_FILE, MANIFEST_FILE, OnnxEncoder, file_digest
from rule_server.retrieval.encoders.paired import SEPARATOR, PairedEncoder
from rule_server.retrieval.encoders.processor import has_int8_products
from rule_server.retrieval.threshold import Calibration
from rule_server.rulebook import Rulebook
from rule_server.rulebook.files import sync_folder, write_atomic
from rule_server.settings import Precision, packaged_rules

if TYPE_CHECKING:
    from rule_server.retrieval.index import RuleIndex

SCHEMA_VERSION = 2
INDEX_SCHEMA_VERSION = 3
"""Version of a stored rulebook's format. A rulebook with a lower version is embedded again when it is
needed."""
MAX_UNPUBLISHED = 10
"""Unpublished rulebooks to store. Those that were never served are removed first, then the oldest."""
MAX_PUBLISHED = 50
"""Rulebooks of `ascl-rules build` to store, for a rollback."""
ABANDONED_SECONDS = 86_400
"""Age from which a temporary folder belongs to no running process."""
PUBLISHED, SERVED = "published", "served"
"""Empty marker files of a stored rulebook. They survive a rebuild."""
LINEAGE = "lineage-"
"""Prefix of marker files that name the rules folders of a stored rulebook."""


def lineage(rules: tuple[Path, ...]) -> str:
    """Returns the mark of rules folders, for the packaged ones wherever they are installed."""
    packaged = packaged_rules()
    names = ["packaged" if path.resolve() == packaged else str(path.resolve()) for path in rules]
    return LINEAGE + hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Current:
    """Content of artefact.json."""

    encoder: str
    """Fingerprint."""
    rulebook: str
    """Digest."""
    own_rules: bool
    """Follow the packaged rules. False if a rules folder was named, or after a rollback."""


class Artefact:
    """One artefact folder. Does no I/O until a method is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Current | None:
        """Returns the current encoder and rulebook, or None when this version has built nothing yet.

        Raises:
            ArtefactError: artefact.json is damaged or of another version.
        """
        path = self.folder / "artefact.json"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            schema = value.pop("schema")
            if isinstance(schema, int) and 0 < schema < SCHEMA_VERSION:
                return None  # of an earlier version of the service: it is built again
            if schema != SCHEMA_VERSION:
                raise ValueError("it is of another version")
            return Current(**value)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtefactError(
                f"{path} cannot be used ({error}): remove {self.folder} and run `ascl-rules build`"
            ) from None

    def encoder_folder(self, fingerprint: str) -> Path:
        """Returns the folder of the English encoder. The multilingual one is an installed package."""
        return self.folder / "encoder" / fingerprint.partition(SEPARATOR)[0]

    def has_encoder(self, fingerprint: str) -> bool:
        return (self.encoder_folder(fingerprint) / MANIFEST_FILE).is_file()

    def encoder(self, fingerprint: str, threads: int, precision: Precision = "auto") -> PairedEncoder:
        """Opens the encoders. `auto`: with int8 weights if they exist and the processor is fast with them.

        Raises:
            EncoderError: an encoder is missing or damaged, or cannot have this precision here.
        """
        folder = self.encoder_folder(fingerprint)
        if precision == "int8":
            self._check_int8(folder)
        int8 = precision != "exact" and has_int8_products() and (folder / INT8_MODEL_FILE).exists()
        english = OnnxEncoder(folder, threads, int8=int8)
        multilingual = MultilingualEncoder(threads, int8=int8)
        open_exact = partial(self.encoder, fingerprint, threads, "exact") if int8 else None
        return PairedEncoder(multilingual, english, E5Encoder(threads), open_exact)

    def _check_int8(self, folder: Path) -> None:
        if not has_int8_products():
            raise EncoderError(
                "precision int8 needs a processor with AVX2 (x86-64) or dotprod (ARM): "
                "use ASCL_RULES_PRECISION=auto"
            )
        if folder.exists() and not (folder / INT8_MODEL_FILE).exists():
            raise EncoderError(
                f"{folder} has no encoder with int8 weights, because they would change its vectors too much "
                "or an earlier version built it: use ASCL_RULES_PRECISION=auto, or remove it and run "
                "`ascl-rules build`"
            )

    def index(self, digest: str, fingerprint: str) -> RuleIndex | None:
        """Returns the index of a rulebook, or None when it was not built with that encoder.

        Raises:
            ArtefactError: its files differ from those that were written.
        """
        from rule_server.retrieval.index import RuleIndex
        from rule_server.retrieval.search.text_index import TextIndex

        folder = self.folder / "rulebooks" / digest
        try:
            manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            if manifest["encoder"] != fingerprint or manifest.get("ordinary") != background_digest():
                return None
            if manifest["schema"] < INDEX_SCHEMA_VERSION:
                return None
            for name, written in manifest["files"].items():
                if file_digest(folder / name) != written:
                    raise ValueError(f"{name} is not what was written")
            rulebook = Rulebook.from_canonical((folder / "rulebook.json").read_bytes())
            if rulebook.digest != digest:
                raise ValueError("rulebook.json is not what was written")
            measured = manifest.get("calibration")
            calibration = Calibration(**measured) if measured is not None else None
            texts = {part: TextIndex.read(folder, part) for part in manifest["encoders"]}
            return RuleIndex(rulebook, fingerprint, texts, calibration)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
            raise ArtefactError(
                f"{folder} is damaged ({error}): remove it and run `ascl-rules build`"
            ) from None

    def save(self, index: RuleIndex, *, own_rules: bool, make_current: bool = True) -> None:
        """Stores an index and, with `make_current`, makes it the current one.

        Without `make_current`, an index of the same rulebook for another encoder is left in place.

        Raises:
            ArtefactError: the folder cannot be written.
        """
        digest = index.rulebook.digest
        if not make_current and self.encoder_of(digest) not in (None, index.fingerprint):
            return
        target = self.folder / "rulebooks" / digest
        manifest: dict[str, Any] = {
            "schema": INDEX_SCHEMA_VERSION,
            "encoder": index.fingerprint,
            "name": index.rulebook.name,
            "version": index.rulebook.version,
            "rules": len(index.rulebook.served),
            "encoders": list(index.texts),
            "files": {},
            "ordinary": background_digest(),
            "calibration": asdict(index.calibration) if index.calibration is not None else None,
        }
        with self.new_folder(target, replace=True) as folder:
            (folder / "rulebook.json").write_text(index.rulebook.canonical(), encoding="utf-8")
            for part, texts in index.texts.items():
                for name, content in texts.serialized(part).items():
                    (folder / name).write_bytes(content.data)
                    manifest["files"][name] = hashlib.sha256(content.data).hexdigest()
            (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            for mark in (PUBLISHED, SERVED, *self.lineages(digest)):
                if (target / mark).exists():
                    (folder / mark).touch()
        if make_current:
            self.set_current(Current(index.fingerprint, digest, own_rules))
        current = self.current()
        self._prune({digest, *([current.rulebook] if current else [])})

    def encoder_of(self, digest: str) -> str | None:
        """Returns the fingerprint of the encoder of a stored rulebook, or None when it is not stored."""
        try:
            path = self.folder / "rulebooks" / digest / MANIFEST_FILE
            return str(json.loads(path.read_text(encoding="utf-8"))["encoder"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def rulebook_folders(self) -> list[Path]:
        """Returns the folders of the stored rulebooks, newest first, without any removed meanwhile."""
        folders = []
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder / "rulebooks").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if not path.name.startswith("."):
                        folders.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(folders, reverse=True)]

    def write_problem(self) -> str | None:
        """Returns the reason why nothing can be stored, None if a file can be created in the folder."""
        folder = self.folder / "rulebooks"
        try:
            while not folder.exists():
                folder = folder.parent
            with tempfile.TemporaryFile(dir=folder):
                return None
        except OSError as error:
            return str(self._not_writable(error))

    def publish(self, digest: str) -> None:
        """Marks a stored rulebook as a target for rollbacks. Raises ArtefactError."""
        try:
            (self.folder / "rulebooks" / digest / PUBLISHED).touch()
        except OSError as error:
            raise self._not_writable(error) from None

    def lineages(self, digest: str) -> frozenset[str]:
        """Returns the lineages of a stored rulebook; empty if an earlier version of the service stored it."""
        return frozenset(path.name for path in (self.folder / "rulebooks" / digest).glob(f"{LINEAGE}*"))

    def add_lineage(self, digest: str, rules: tuple[Path, ...]) -> None:
        """Marks a stored rulebook as one of these rules folders, if it is stored and can be marked."""
        mark = self.folder / "rulebooks" / digest / lineage(rules)
        if rules and not mark.exists():
            with contextlib.suppress(OSError):
                mark.touch()

    def save_calibration(self, digest: str, calibration: Calibration) -> None:
        """Stores a measured threshold beside the vectors of a rulebook. Raises ArtefactError."""
        path = self.folder / "rulebooks" / digest / MANIFEST_FILE
        try:
            manifest = json.loads(path.read_text(encoding="utf-8")) | {"calibration": asdict(calibration)}
            write_atomic(path, json.dumps(manifest, indent=1).encode())
        except OSError as error:
            raise self._not_writable(error) from None

    def set_current(self, current: Current) -> None:
        """Makes an encoder and a stored rulebook current. Raises ArtefactError."""
        folder = self.folder / "rulebooks" / current.rulebook
        try:
            (folder / SERVED).touch()
            os.utime(folder)  # it counts as new again, so it is not pruned
            value = {"schema": SCHEMA_VERSION} | asdict(current)
            write_atomic(self.folder / "artefact.json", json.dumps(value).encode())
        except OSError as error:
            raise self._not_writable(error) from None

    @contextmanager
    def new_folder(self, target: Path, *, replace: bool = False) -> Iterator[Path]:
        """Yields a folder to fill. It becomes `target` when the block succeeds.

        If another process created `target` meanwhile, that folder stays. After a failure the folder that was
        there before stays, and nothing else remains.

        Raises:
            ArtefactError: the artefact cannot be written.
        """
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target.parent)
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
        except OSError as error:
            raise self._not_writable(error) from None
        failure: OSError | None = None
        old = temporary.with_name(temporary.name.replace(".new-", ".before-", 1))
        try:
            temporary.chmod(0o755)
            try:
                yield temporary
            except OSError as error:
                # The block may also read: what it cannot find elsewhere does not concern this folder.
                if _concerns(error, target.parent):
                    raise self._not_writable(error) from None
                failure = error
                raise
            sync_folder(temporary)
            if replace:
                with contextlib.suppress(FileNotFoundError):  # another process may be replacing it too
                    target.rename(old)  # faster than removing it, during which a reader would find nothing
            try:
                temporary.rename(target)
            except OSError as error:
                with contextlib.suppress(
                    OSError
                ):  # nothing was moved away, or another folder is there already
                    old.rename(target)
                lost_race = error.errno in (errno.EEXIST, errno.ENOTEMPTY)
                if not lost_race or not (target / MANIFEST_FILE).is_file():
                    raise
        except OSError as error:
            if error is failure:
                raise
            raise self._not_writable(error) from None
        finally:
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(temporary, ignore_errors=True)

    def _prune(self, keep: set[str]) -> None:
        folders = self.rulebook_folders()
        published = [path for path in folders if (path / PUBLISHED).exists()]
        others = [path for path in folders if path not in published]
        others.sort(key=lambda path: not (path / SERVED).exists())
        for path in others[MAX_UNPUBLISHED:] + published[MAX_PUBLISHED:]:
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)

    def _not_writable(self, error: OSError) -> ArtefactError:
        remedy = _REMEDIES.get(error.errno or 0, "make it writable")
        return ArtefactError(
            f"the artefact folder {self.folder} cannot be written ({error.strerror or error}): "
            f"{remedy}, or specify another folder with --artefact or ASCL_RULES_ARTEFACT"
        )


_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space") | {
    errno.ENOENT: "start again, and let no other program remove its files"
}


def _concerns(error: OSError, folder: Path) -> bool:
    """Returns whether an error is about writing to a folder; errors of writes to open files name no file."""
    if error.filename is None:
        return error.errno is not None
    return Path(os.fsdecode(error.filename)).absolute().is_relative_to(folder.absolute())


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary folders of processes that were killed."""
    for path in (*folder.glob(".new-*"), *folder.glob(".before-*")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
