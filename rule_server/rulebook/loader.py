"""Loads folders of Markdown files into one rulebook, or reports their problems.

Several folders are layers: a later one adds rules and categories to those beneath, replaces them by id, and
retires rules with the list `retire` in its rulebook.yaml. `extends: ascl-core` there puts the packaged rules
beneath.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rule_server.errors import RulebookError
from rule_server.rulebook.diagnosis import Fault, RepairBudget, RuleFileError
from rule_server.rulebook.ignored import is_document, is_ignored, is_notable, is_project_folder
from rule_server.rulebook.model import Category, FolderManifest, Manifest, Rule, Rulebook, join_scopes
from rule_server.rulebook.parser import (
    CATEGORY_FILE,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_WORDS,
    LintProblem,
    misplaced_file,
    parse_category,
    parse_manifest,
    parse_rule,
    read_text,
)
from rule_server.settings import packaged_rules

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_WORDS",
    "LintProblem",
    "ReadResult",
    "list_names",
    "load_rulebook",
    "read_folders",
    "read_rulebook",
    "resolve_layers",
]

log = logging.getLogger(__name__)

MAX_RULES = 5000
MAX_CATEGORIES = 200
MAX_RULEBOOK_BYTES = 16 << 20  # sum of all files; YAML parses at about 2 MB per second

Folders = Path | Sequence[Path]


@dataclass(frozen=True)
class ReadResult:
    """Result of reading folders: a rulebook or problems, and the file of each rule."""

    rulebook: Rulebook | None
    problems: list[LintProblem]
    files: dict[tuple[str, str], str]
    """File name as in problems, by (rule id, language), or (category, "")."""
    ignored: tuple[str, ...] = ()
    """Files and folders skipped because of their names. Hidden ones and README.md are not listed."""
    readable: Rulebook | None = None
    """The rulebook, or what its files without problems contain. None: no rule at all."""
    broken: frozenset[str] = frozenset()
    """Ids of the rules, and categories, whose files have problems."""


@dataclass
class _Layer:
    """Content of one folder."""

    folder: Path
    prefix: str
    manifest: FolderManifest | None = None
    categories: dict[str, Category] = field(default_factory=dict)
    rules: dict[tuple[str, str], Rule] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Ids of rules whose files have problems."""
    uncategorised: list[str] = field(default_factory=list)
    """Category folders without a _category.md."""
    problems: list[LintProblem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    budget: RepairBudget = field(default_factory=RepairBudget)

    def report(self, file: str, *problems: tuple[str, str] | Fault) -> None:
        self.problems += [LintProblem.sanitized(self.prefix + file, *problem) for problem in problems]

    def ignore(self, file: Path) -> None:
        if is_notable(file.name):
            name = self.prefix + file.relative_to(self.folder).as_posix()
            self.ignored.append("".join(c if c.isprintable() else "?" for c in name))


_logged: set[str] = set()
"""Ignored files that the log names already."""


def list_names(names: Sequence[str]) -> str:
    """Returns the first ten names, and the number of the others."""
    others = len(names) - 10
    return ", ".join(names[:10]) + (f" and {others} more" if others > 0 else "")


def load_rulebook(
    folders: Folders, variables: Mapping[str, str] | None = None, *, drafts: bool = False
) -> Rulebook:
    """Loads the rulebook of a folder, or of several as layers, lowest first.

    `drafts` accepts a rulebook that has only drafts.

    Raises:
        RulebookError: a file is invalid; the message names the first one, its fix, and the number of others.
    """
    result = read_folders(folders, variables, always_prefix=True, drafts=drafts)
    new = [name for name in result.ignored if name not in _logged]
    _logged.update(new)
    if new:
        log.info("not part of the rulebook by their names: %s", list_names(new))
    if result.rulebook is None:
        others = len(result.problems) - 1
        more = f" (and {others} more: see `ascl-rules lint`)" if others else ""
        raise RulebookError(f"{result.problems[0]}{more}")
    return result.rulebook


def read_rulebook(
    folders: Folders, variables: Mapping[str, str] | None = None
) -> tuple[Rulebook | None, list[LintProblem]]:
    """Returns the rulebook of the folders, or None and all problems.

    Raises:
        RulebookError: a path is not a folder.
    """
    result = read_folders(folders, variables)
    return result.rulebook, result.problems


def resolve_layers(folders: Folders) -> tuple[Path, ...]:
    """Returns all layers, lowest first: the named folders, and the packaged rules if one extends them."""
    named = (folders,) if isinstance(folders, Path) else tuple(folders)
    packaged = packaged_rules()
    if any(folder.resolve() == packaged for folder in named):
        return named
    return (packaged, *named) if any(map(_extends, named)) else named


def _extends(folder: Path) -> bool:
    """Returns whether a folder extends the packaged rules, as far as its rulebook.yaml can be read."""
    try:
        return _read_manifest(folder).extends is not None
    except RuleFileError:  # reported when the folder is read
        pass
    try:
        return re.search(r"(?m)^extends[ \t]*:", read_text(folder / MANIFEST)) is not None
    except (RuleFileError, OSError):
        return False


def read_folders(
    folders: Folders,
    variables: Mapping[str, str] | None = None,
    *,
    always_prefix: bool = False,
    drafts: bool = False,
) -> ReadResult:
    """Reads folders as layers.

    Args:
        always_prefix: name files with their folder even if there is only one folder.
        drafts: accept a rulebook that has only drafts.

    Raises:
        RulebookError: a path is not a folder.
    """
    paths = resolve_layers(folders)
    for folder in paths:
        if not _is_folder(folder):
            raise RulebookError(
                f"{folder} is not a folder: specify the rules folder with --rules or ASCL_RULES_DIR"
                if folder != packaged_rules()
                else f"{paths[-1]} extends the packaged rules, but this installation has none in {folder}"
            )
    layers: list[_Layer] = []
    for folder, prefix in zip(paths, layer_prefixes(paths, always=always_prefix), strict=True):
        beneath = {category for layer in layers for category in layer.categories}
        layers.append(_read_layer(folder, prefix, variables or {}, beneath))
    return _merge(layers, {"active", "draft"} if drafts else {"active"})


def layer_prefixes(folders: Sequence[Path], *, always: bool = False) -> list[str]:
    """Returns the prefix of each layer's file names in messages; empty if there is only one layer."""
    names = [folder.resolve().name for folder in folders]
    unique = [
        own if names.count(own) == 1 else str(folder) for folder, own in zip(folders, names, strict=True)
    ]
    return [f"{name}/" if always or len(folders) > 1 else "" for name in unique]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a parent folder is not accessible
        return False


def _read_manifest(folder: Path, budget: RepairBudget | None = None) -> FolderManifest:
    """Reads rulebook.yaml. Raises RuleFileError."""
    try:
        return parse_manifest(folder / MANIFEST, budget)
    except OSError as error:
        raise RuleFileError(_unreadable(error)) from None


def _unreadable(error: OSError) -> tuple[str, str]:
    return f"it cannot be read ({error.strerror})", "make it readable"


def _read_layer(folder: Path, prefix: str, variables: Mapping[str, str], beneath: set[str]) -> _Layer:
    """Reads one folder. `beneath` are the categories of the layers beneath it."""
    layer = _Layer(folder, prefix)
    try:
        layer.manifest = _read_manifest(folder, layer.budget)
    except RuleFileError as error:
        layer.report(MANIFEST, *error.problems)
    budget, files = MAX_RULEBOOK_BYTES, 0
    for entry in _list_entries(layer, folder):
        if entry.name == MANIFEST:
            continue
        if is_document(entry.name) and (entry.is_symlink() or not _is_folder(entry)):
            layer.ignore(entry)
            continue
        try:
            if entry.name not in beneath and _is_project_folder(entry):
                layer.ignore(entry)
                continue
            if entry.is_symlink() or not entry.is_dir():
                if entry.is_symlink() or entry.suffix == ".md":
                    layer.report(entry.name, misplaced_file(entry))
                continue
            (entry / CATEGORY_FILE).lstat()
        except FileNotFoundError:
            layer.uncategorised.append(entry.name)
        except OSError as error:
            layer.report(entry.name, _unreadable(error))
            continue
        for file in _list_entries(layer, entry):
            budget -= _read_file(layer, file, variables)
            files += 1  # also files without a rule, whose number is otherwise unlimited
            many = len(layer.rules) > MAX_RULES or files > MAX_RULES + MAX_CATEGORIES
            if budget < 0 or many or len(layer.categories) > MAX_CATEGORIES:
                size = f"{MAX_RULEBOOK_BYTES >> 20} MiB"
                limit = f"at most {MAX_RULES} rules in {MAX_CATEGORIES} categories, and {size}"
                layer.report(entry.name, (f"a rulebook holds {limit}", "split the rulebook"))
                return layer
    return layer


def _list_entries(layer: _Layer, folder: Path) -> list[Path]:
    """Returns the sorted entries of a folder without the files of editors and version control."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        name = "." if folder == layer.folder else folder.name
        layer.report(name, (f"it cannot be listed ({error.strerror})", "make it readable"))
        return []
    for path in entries:
        if is_ignored(path.name):
            layer.ignore(path)
    return [path for path in entries if not is_ignored(path.name)]


def _is_project_folder(path: Path) -> bool:
    """Returns whether a top folder, or a link of such a name, is not a category. Raises OSError."""
    if not is_project_folder(path.name):
        return False
    if path.is_symlink() or not path.is_dir():
        return path.is_symlink()
    return not (path / CATEGORY_FILE).exists() and not any(map(_has_rule_id, path.glob("*.md")))


def _has_rule_id(file: Path) -> bool:
    """Returns whether a file looks like a rule of its folder. One that cannot be read does not."""
    try:
        return f"\nid: {file.parent.name}." in read_text(file)
    except RuleFileError:
        return False


def _read_file(layer: _Layer, file: Path, variables: Mapping[str, str]) -> int:
    """Reads one file of a category folder into the layer. Returns an upper bound of the bytes read."""
    category = file.parent.name
    size = 0
    try:
        size = min(file.lstat().st_size, MAX_FILE_BYTES)
        if file.is_symlink() or file.suffix != ".md" or not file.is_file():
            raise RuleFileError(misplaced_file(file))
        if file.name == CATEGORY_FILE:
            layer.categories[category] = parse_category(file, layer.budget)
        else:
            rule = parse_rule(file, variables, layer.budget)
            layer.rules[rule.id, rule.lang] = rule
    except RuleFileError as error:
        layer.broken.add(_broken_id(file))
        layer.report(f"{category}/{file.name}", *error.problems)
    except FileNotFoundError:  # removed since it was listed
        pass
    except OSError as error:
        layer.broken.add(_broken_id(file))
        layer.report(f"{category}/{file.name}", _unreadable(error))
    return size


def _broken_id(file: Path) -> str:
    """Returns the id of the rule or category that a file should contain; empty for other files."""
    if file.name == CATEGORY_FILE:
        return file.parent.name
    return f"{file.parent.name}.{file.name.partition('.')[0]}" if file.suffix == ".md" else ""


def _merge(layers: Sequence[_Layer], required_statuses: set[str]) -> ReadResult:
    """Merges layers, lowest first. At least one rule must have one of the required statuses."""
    categories: dict[str, Category] = {}
    rules: dict[tuple[str, str], Rule] = {}
    files: dict[tuple[str, str], str] = {}
    for layer in layers:
        _retire(layer, rules)
        replaced = {id for id, lang in layer.rules if not lang}
        for key in [key for key in rules if key[0] in replaced]:
            del rules[key]  # also the translations, which translate the replaced rule
        rules |= layer.rules
        categories |= layer.categories
        files |= {(name, ""): f"{layer.prefix}{name}/{CATEGORY_FILE}" for name in layer.categories}
        for id, lang in layer.rules:
            files[id, lang] = f"{layer.prefix}{id.replace('.', '/')}{'.' + lang if lang else ''}.md"
    for layer in layers:
        for name in layer.uncategorised:
            if name not in categories:
                hint = " (or `extends: ascl-core` in rulebook.yaml)" if len(layers) == 1 else ""
                fix = f"write one with id, title and summary{hint}"
                layer.report(f"{name}/{CATEGORY_FILE}", ("the file is missing", fix))
    broken = set().union(*(layer.broken for layer in layers)) - {""}
    for id, lang in rules:
        if lang and (id, "") not in rules and id not in broken:
            problem = ("it translates no rule", "add the original, or remove this")
            layers[-1].problems.append(LintProblem.sanitized(files[id, lang], *problem))
    problems = [problem for layer in layers for problem in layer.problems]
    top = layers[-1]
    if not problems and not any(
        rule.status in required_statuses and not rule.lang for rule in rules.values()
    ):
        problems.append(LintProblem.sanitized(top.prefix + MANIFEST, *_no_active_rule(rules)))
    ignored = tuple(name for layer in layers for name in layer.ignored)
    named = top.manifest or Manifest(name="unreadable", version="0.0.0")
    manifests = [layer.manifest for layer in layers if layer.manifest is not None]
    rulebook = Rulebook(
        name=named.name,
        version=named.version,
        consult_when=join_scopes(
            [(layer.manifest.consult_when if layer.manifest else None, layer.categories) for layer in layers]
        ),
        threshold=next((book.threshold for book in reversed(manifests) if book.threshold is not None), None),
        categories=[categories[name] for name in sorted(categories)],
        rules=[rules[key] for key in sorted(rules)],
    )
    valid = None if problems or top.manifest is None else rulebook
    return ReadResult(valid, problems, files, ignored, rulebook, frozenset(broken))


def _no_active_rule(rules: Mapping[tuple[str, str], Rule]) -> tuple[str, str]:
    """Returns problem and fix for a rulebook without an active rule."""
    if not rules:
        return "the rulebook has no rule", "add <category>/<rule>.md"
    drafts = any(rule.status == "draft" and not rule.lang for rule in rules.values())
    preview = ", or see drafts by `query --draft`" if drafts else ""
    return "no rule is active", f"set `status: active` in one{preview}"


def _retire(layer: _Layer, beneath: dict[tuple[str, str], Rule]) -> None:
    """Marks rules of the layers beneath as retired: their ids stay reserved, but they are not served."""
    for id in layer.manifest.retire if layer.manifest else ():
        if (id, "") in layer.rules:
            problem = f"`retire` names {id}, which is in this folder itself"
            layer.report(MANIFEST, (problem, "set `status: retired` in its file instead"))
        elif (id, "") not in beneath:
            problem = f"`retire` names {id}, which no rulebook beneath contains"
            layer.report(MANIFEST, (problem, "correct the id or remove it"))
        else:
            for key in [key for key in beneath if key[0] == id]:
                beneath[key] = beneath[key].model_copy(update={"status": "retired"})
