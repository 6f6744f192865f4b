"""How folders of Markdown files become one rulebook, or a list of what is wrong with them.

Several folders are layers: a later one adds rules and categories to those beneath, replaces them by id, and
retires rules by the list `retire` of its rulebook.yaml. `extends: ascl-core` there puts our own beneath.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rule_server.errors import RulebookError
from rule_server.rulebook.model import Category, FolderManifest, Rule, Rulebook
from rule_server.rulebook.parser import (
    CATEGORY_FILE,
    MANIFEST,
    MAX_FILE,
    MAX_WORDS,
    BadFile,
    LintProblem,
    misplaced,
    parse_category,
    parse_manifest,
    parse_rule,
)
from rule_server.settings import packaged_rules

__all__ = [
    "MAX_FILE",
    "MAX_WORDS",
    "LintProblem",
    "Reading",
    "layers",
    "load_rulebook",
    "read_folders",
    "read_rulebook",
]

MAX_RULES = 5000
MAX_CATEGORIES = 200
MAX_BYTES = 16 << 20  # of all files: YAML is read at some 2 MB a second

Folders = Path | Sequence[Path]


@dataclass(frozen=True)
class Reading:
    """What was found in the folders: a rulebook or problems, and which file each rule came from."""

    rulebook: Rulebook | None
    problems: list[LintProblem]
    files: dict[tuple[str, str], str]
    """By rule id and language, or category and ``: the file as problems name it."""


@dataclass
class _Layer:
    """One folder as read."""

    folder: Path
    prefix: str
    manifest: FolderManifest | None = None
    categories: dict[str, Category] = field(default_factory=dict)
    rules: dict[tuple[str, str], Rule] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Ids of rules whose files have problems."""
    uncategorised: list[str] = field(default_factory=list)
    """Folders of categories that have no file for the category itself."""
    problems: list[LintProblem] = field(default_factory=list)

    def report(self, file: str, *found: tuple[str, str]) -> None:
        self.problems += [LintProblem.of(self.prefix + file, problem, fix) for problem, fix in found]


def load_rulebook(
    folders: Folders, variables: Mapping[str, str] | None = None, *, drafts: bool = False
) -> Rulebook:
    """The rulebook in a folder, or in several as layers, the lowest first.

    With `drafts`, one whose rules are drafts alone will do.

    Raises:
        RulebookError: one sentence that names the first bad file and its fix, and how many more there are.
    """
    reading = read_folders(folders, variables, always_prefix=True, drafts=drafts)
    if reading.rulebook is None:
        others = len(reading.problems) - 1
        more = f" (and {others} more: see `ascl-rules lint`)" if others else ""
        raise RulebookError(f"{reading.problems[0]}{more}")
    return reading.rulebook


def read_rulebook(
    folders: Folders, variables: Mapping[str, str] | None = None
) -> tuple[Rulebook | None, list[LintProblem]]:
    """The rulebook in the folders, or None and every problem that was found.

    Raises:
        RulebookError: when one is no folder.
    """
    reading = read_folders(folders, variables)
    return reading.rulebook, reading.problems


def layers(folders: Folders) -> tuple[Path, ...]:
    """The folders that make up the rulebook, the lowest first: those named, and ours if one extends it."""
    named = (folders,) if isinstance(folders, Path) else tuple(folders)
    own = packaged_rules()
    if any(folder.resolve() == own for folder in named):
        return named
    for folder in named:
        try:
            if _manifest(folder).extends:
                return (own, *named)
        except BadFile:
            continue  # reported when the folder is read
    return named


def read_folders(
    folders: Folders,
    variables: Mapping[str, str] | None = None,
    *,
    always_prefix: bool = False,
    drafts: bool = False,
) -> Reading:
    """Read folders as layers.

    Problems name a file behind its folder's name where there are several folders, or `always_prefix`.

    Raises:
        RulebookError: when one is no folder.
    """
    found = layers(folders)
    for folder in found:
        if not _is_folder(folder):
            raise RulebookError(
                f"{folder} is no folder: name the rules folder by --rules or ASCL_RULES_DIR"
                if folder != packaged_rules()
                else f"{found[-1]} extends our rules, but this installation has none in {folder}"
            )
    names = [folder.resolve().name for folder in found]
    read = []
    for folder, own in zip(found, names, strict=True):
        name = own if names.count(own) == 1 else str(folder)
        prefix = f"{name}/" if always_prefix or len(found) > 1 else ""
        read.append(_read(folder, prefix, variables or {}))
    return _merged(read, {"active", "draft"} if drafts else {"active"})


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # one above it may not be entered
        return False


def _manifest(folder: Path) -> FolderManifest:
    """Raises BadFile."""
    try:
        return parse_manifest(folder / MANIFEST)
    except OSError as error:
        raise BadFile(_unreadable(error)) from None


def _unreadable(error: OSError) -> tuple[str, str]:
    return f"it cannot be read ({error.strerror})", "make it readable"


def _read(folder: Path, prefix: str, variables: Mapping[str, str]) -> _Layer:
    layer = _Layer(folder, prefix)
    try:
        layer.manifest = _manifest(folder)
    except BadFile as bad:
        layer.report(MANIFEST, *bad.found)
    budget, files = MAX_BYTES, 0
    for entry in _listed(layer, folder):
        if entry.name in (MANIFEST, "README.md"):
            continue
        try:
            if entry.is_symlink() or not entry.is_dir():
                if entry.is_symlink() or entry.suffix == ".md":
                    layer.report(entry.name, misplaced(entry))
                continue
            (entry / CATEGORY_FILE).lstat()
        except FileNotFoundError:
            layer.uncategorised.append(entry.name)
        except OSError as error:
            layer.report(entry.name, _unreadable(error))
            continue
        for file in _listed(layer, entry):
            budget -= _read_file(layer, file, variables)
            files += 1  # those that hold no rule too: there may be any number of them
            many = len(layer.rules) > MAX_RULES or files > MAX_RULES + MAX_CATEGORIES
            if budget < 0 or many or len(layer.categories) > MAX_CATEGORIES:
                most = f"at most {MAX_RULES} rules in {MAX_CATEGORIES} categories, and {MAX_BYTES >> 20} MiB"
                layer.report(entry.name, (f"a rulebook holds {most}", "split the rulebook"))
                return layer
    return layer


def _listed(layer: _Layer, folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without what editors and version control leave there."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        name = "." if folder == layer.folder else folder.name
        layer.report(name, (f"it cannot be listed ({error.strerror})", "make it readable"))
        return []
    return [
        path
        for path in entries
        if not path.name.startswith(".") and not path.name.endswith("~") and path.name != "__pycache__"
    ]


def _read_file(layer: _Layer, file: Path, variables: Mapping[str, str]) -> int:
    """Read one file of a category's folder into the layer; the bytes that were read of it at most."""
    category = file.parent.name
    size = 0
    try:
        size = min(file.lstat().st_size, MAX_FILE)
        if file.is_symlink() or file.suffix != ".md" or not file.is_file():
            raise BadFile(misplaced(file))
        if file.name == CATEGORY_FILE:
            layer.categories[category] = parse_category(file)
        else:
            rule = parse_rule(file, variables)
            layer.rules[rule.id, rule.lang] = rule
    except BadFile as bad:
        layer.broken.add(f"{category}.{file.stem}")
        layer.report(f"{category}/{file.name}", *bad.found)
    except FileNotFoundError:  # removed between two looks at it
        pass
    except OSError as error:
        layer.broken.add(f"{category}.{file.stem}")
        layer.report(f"{category}/{file.name}", _unreadable(error))
    return size


def _merged(read: Sequence[_Layer], will_do: set[str]) -> Reading:
    """`will_do`: of which status one rule must be."""
    categories: dict[str, Category] = {}
    rules: dict[tuple[str, str], Rule] = {}
    files: dict[tuple[str, str], str] = {}
    for layer in read:
        _retire(layer, rules)
        replaced = {id for id, lang in layer.rules if not lang}
        for key in [key for key in rules if key[0] in replaced]:
            del rules[key]  # with its translations: they say what the replaced rule said
        rules |= layer.rules
        categories |= layer.categories
        files |= {(name, ""): f"{layer.prefix}{name}/{CATEGORY_FILE}" for name in layer.categories}
        for id, lang in layer.rules:
            files[id, lang] = f"{layer.prefix}{id.replace('.', '/')}{'.' + lang if lang else ''}.md"
    for layer in read:
        for name in layer.uncategorised:
            if name not in categories:
                hint = " (or `extends: ascl-core` in rulebook.yaml)" if len(read) == 1 else ""
                fix = f"write one with id, title and summary{hint}"
                layer.report(f"{name}/{CATEGORY_FILE}", ("the file is missing", fix))
    broken = set().union(*(layer.broken for layer in read))
    for id, lang in rules:
        if lang and (id, "") not in rules and id not in broken:
            problem = ("it translates no rule", "add the original, or remove this")
            read[-1].problems.append(LintProblem.of(files[id, lang], *problem))
    problems = [problem for layer in read for problem in layer.problems]
    top = read[-1]
    if not problems and not any(rule.status in will_do and not rule.lang for rule in rules.values()):
        drafts = any(rule.status == "draft" and not rule.lang for rule in rules.values())
        look = ", or see drafts by `query --draft`" if drafts else ""
        what, fix = (
            ("no rule is active", f"set `status: active` in one{look}")
            if rules
            else ("the rulebook has no rule", "add <category>/<rule>.md")
        )
        problems.append(LintProblem.of(top.prefix + MANIFEST, what, fix))
    if problems or top.manifest is None:
        return Reading(None, problems, files)
    rulebook = Rulebook(
        name=top.manifest.name,
        version=top.manifest.version,
        categories=[categories[name] for name in sorted(categories)],
        rules=[rules[key] for key in sorted(rules)],
    )
    return Reading(rulebook, [], files)


def _retire(layer: _Layer, beneath: dict[tuple[str, str], Rule]) -> None:
    """Mark rules of the layers beneath as retired: their ids stay taken, and nobody is served them."""
    for id in layer.manifest.retire if layer.manifest else ():
        if (id, "") in layer.rules:
            problem = f"`retire` names {id}, which this folder holds itself"
            layer.report(MANIFEST, (problem, "set `status: retired` in its file instead"))
        elif (id, "") not in beneath:
            problem = f"`retire` names {id}, which no rulebook beneath holds"
            layer.report(MANIFEST, (problem, "correct the id or remove it"))
        else:
            for key in [key for key in beneath if key[0] == id]:
                beneath[key] = beneath[key].model_copy(update={"status": "retired"})
