"""The index artefact: a folder from which the service starts without torch and without the rules folder.

    artefact.json             which encoder and which rulebook are current
    encoder/<fingerprint>/    model.onnx, tokenizer.json, manifest.json
    rulebooks/<digest>/       rulebook.json (canonical), vectors.npy, manifest.json; published (by `build`),
                              served (was current once)

Folders are written aside and renamed into place, so a reader finds a whole one or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from rule_server.errors import ArtefactError
from rule_server.retrieval import background as ordinary
from rule_server.retrieval.encoder import MANIFEST_FILE, OnnxEncoder
from rule_server.retrieval.threshold import Calibration
from rule_server.rulebook import Rulebook

if TYPE_CHECKING:
    from rule_server.retrieval.index import RuleIndex

SCHEMA = 1
KEPT = 10
"""Rulebooks kept, newest first, but those that were served before those that were only looked at."""
KEPT_PUBLISHED = 50
"""Rulebooks kept beside those because `ascl-rules build` made them: one can go back to them."""
PUBLISHED, SERVED = "published", "served"
"""Marks of a kept rulebook: empty files, which outlive its being built again."""


@dataclass(frozen=True)
class Current:
    """What artefact.json says."""

    encoder: str
    """Fingerprint."""
    rulebook: str
    """Digest."""
    own_rules: bool
    """Follow our own rules; false when a rules folder was named, or an earlier rulebook was gone back to."""


class Artefact:
    """One artefact folder. Nothing is read or written before a method is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Current | None:
        """What was built last, or None when nothing was.

        Raises:
            ArtefactError: when artefact.json is damaged or of another version.
        """
        path = self.folder / "artefact.json"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("schema") != SCHEMA:
                raise ValueError("it is of another version")
            return Current(**value)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtefactError(
                f"{path} cannot be used ({error}): remove {self.folder} and run `ascl-rules build`"
            ) from None

    def encoder_folder(self, fingerprint: str) -> Path:
        return self.folder / "encoder" / fingerprint

    def has_encoder(self, fingerprint: str) -> bool:
        return (self.encoder_folder(fingerprint) / MANIFEST_FILE).is_file()

    def encoder(self, fingerprint: str, threads: int) -> OnnxEncoder:
        """Raises EncoderError when it is not there or damaged."""
        return OnnxEncoder(self.encoder_folder(fingerprint), threads)

    def index(self, digest: str, fingerprint: str) -> RuleIndex | None:
        """The index of a rulebook, or None when it was not built with that encoder.

        Raises:
            ArtefactError: when its files are not those that were written.
        """
        from rule_server.retrieval.index import RuleIndex

        folder = self.folder / "rulebooks" / digest
        try:
            manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            if manifest["encoder"] != fingerprint or manifest.get("ordinary") != ordinary.background_digest():
                return None
            raw = (folder / "vectors.npy").read_bytes()
            if hashlib.sha256(raw).hexdigest() != manifest["vectors"]:
                raise ValueError("vectors.npy is not what was written")
            rulebook = Rulebook.model_validate_json((folder / "rulebook.json").read_bytes())
            if rulebook.digest != digest:
                raise ValueError("rulebook.json is not what was written")
            measured = manifest.get("calibration")
            calibration = Calibration(**measured) if measured is not None else None
            vectors = np.load(io.BytesIO(raw), allow_pickle=False)
            return RuleIndex(rulebook, fingerprint, vectors, calibration)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
            raise ArtefactError(
                f"{folder} is damaged ({error}): remove it and run `ascl-rules build`"
            ) from None

    def save(self, index: RuleIndex, *, own_rules: bool, make_current: bool = True) -> None:
        """Keep an index, and make it current unless told not to.

        Without that, it does not take the place of the same rulebook's for another encoder.

        Raises:
            ArtefactError: when the folder cannot be written.
        """
        digest = index.rulebook.digest
        if not make_current and self.made_with(digest) not in (None, index.fingerprint):
            return
        target = self.folder / "rulebooks" / digest
        buffer = io.BytesIO()
        np.save(buffer, index.vectors, allow_pickle=False)
        raw = buffer.getvalue()
        manifest = {
            "schema": SCHEMA,
            "encoder": index.fingerprint,
            "name": index.rulebook.name,
            "version": index.rulebook.version,
            "rules": len(index.rulebook.served),
            "vectors": hashlib.sha256(raw).hexdigest(),
            "ordinary": ordinary.background_digest(),
            "calibration": asdict(index.calibration) if index.calibration is not None else None,
        }
        with self.new_folder(target, replace=True) as folder:
            (folder / "rulebook.json").write_text(index.rulebook.canonical(), encoding="utf-8")
            (folder / "vectors.npy").write_bytes(raw)
            (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            for mark in (PUBLISHED, SERVED):
                if (target / mark).exists():
                    (folder / mark).touch()
        if make_current:
            self.point(Current(index.fingerprint, digest, own_rules))
        current = self.current()
        self._forget_old({digest, *([current.rulebook] if current else [])})

    def made_with(self, digest: str) -> str | None:
        """Fingerprint of the encoder that a kept rulebook's vectors are of; None when it is not kept."""
        try:
            path = self.folder / "rulebooks" / digest / MANIFEST_FILE
            return str(json.loads(path.read_text(encoding="utf-8"))["encoder"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def kept_folders(self) -> list[Path]:
        """Folders of the kept rulebooks, newest first; one that another process removes is left out."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder / "rulebooks").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if not path.name.startswith("."):
                        found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]

    def publish(self, digest: str) -> None:
        """Mark a kept rulebook as one to go back to. Raises ArtefactError when it cannot be written."""
        try:
            (self.folder / "rulebooks" / digest / PUBLISHED).touch()
        except OSError as error:
            raise self._unwritable(error) from None

    def save_calibration(self, digest: str, calibration: Calibration) -> None:
        """Keep a measured threshold beside the vectors of a rulebook. Raises ArtefactError."""
        path = self.folder / "rulebooks" / digest / MANIFEST_FILE
        try:
            manifest = json.loads(path.read_text(encoding="utf-8")) | {"calibration": asdict(calibration)}
            aside = path.with_suffix(".new")
            aside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            aside.replace(path)
        except OSError as error:
            raise self._unwritable(error) from None

    def point(self, current: Current) -> None:
        """Make an encoder and a kept rulebook current. Raises ArtefactError."""
        folder = self.folder / "rulebooks" / current.rulebook
        try:
            (folder / SERVED).touch()
            os.utime(folder)  # it is among the newest again, so it stays
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".artefact")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"schema": SCHEMA} | asdict(current), file)
            os.chmod(name, 0o644)  # noqa: PTH101 - mkstemp's 0600 would hide it from the service's own user
            os.replace(name, self.folder / "artefact.json")  # noqa: PTH105
        except OSError as error:
            raise self._unwritable(error) from None

    @contextmanager
    def new_folder(self, target: Path, *, replace: bool = False) -> Iterator[Path]:
        """A folder to fill, which becomes `target` when the block ends well; one made meanwhile wins.

        Raises:
            ArtefactError: when the artefact cannot be written.
        """
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
        except OSError as error:
            raise self._unwritable(error) from None
        before = aside.with_name(aside.name.replace(".new-", ".before-", 1))
        try:
            aside.chmod(0o755)
            yield aside
            if replace:
                with contextlib.suppress(FileNotFoundError):  # another process may be replacing it as well
                    target.rename(before)  # removing takes longer than a reader should find nothing
            with contextlib.suppress(FileExistsError):
                aside.rename(target)
        except OSError as error:
            if not target.is_dir():
                raise self._unwritable(error) from None
        finally:
            shutil.rmtree(before, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)

    def _forget_old(self, kept: set[str]) -> None:
        folders = self.kept_folders()
        published = [path for path in folders if (path / PUBLISHED).exists()]
        others = [path for path in folders if path not in published]
        others.sort(key=lambda path: not (path / SERVED).exists())
        for path in others[KEPT:] + published[KEPT_PUBLISHED:]:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _unwritable(self, error: OSError) -> ArtefactError:
        return ArtefactError(
            f"the artefact folder {self.folder} cannot be written ({error.strerror}): "
            "name another by --artefact or ASCL_RULES_ARTEFACT"
        )
