"""Names in a rules folder that belong to no rule, as docs/guides/rules.md lists them."""

from __future__ import annotations

import re

_PATTERNS = (
    r"\..*",  # hidden files: .git, .#x.md, .x.md.swp, .DS_Store, ._x.md
    r".*~",
    r"#.*#?",
    r"~\$.*",
    r".*\.(orig|rej|bak|old|tmp|temp|swp|swo|swx|save|part|pyc)",
    r".*___jb_(tmp|old)___",
    r".*\.sb-[0-9a-z-]+",
    r"thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r",
    r"__pycache__|__macosx|node_modules|lost\+found|\$recycle\.bin|system volume information",
)
_IGNORED = re.compile("|".join(_PATTERNS), re.IGNORECASE | re.DOTALL)
_DOCUMENT = re.compile(
    r"(readme|licen[cs]e|copying|copyright|notice|patents|changelog|changes|history|news|contributing|"
    r"code[_-]of[_-]conduct|security|support|governance|maintainers|authors|contributors|codeowners|"
    r"agents|claude|gemini|todo)([._-].*)?",
    re.IGNORECASE | re.DOTALL,
)
_FOLDER = re.compile(
    r"docs?|documentation|examples?|scripts?|tools?|tests?|ci|bin|build|dist|assets|images|venv",
    re.IGNORECASE,
)


def is_ignored(name: str) -> bool:
    """Returns whether a file or folder of this name is left behind by an editor or system, at any depth."""
    return _IGNORED.fullmatch(name) is not None


def is_document(name: str) -> bool:
    """Returns whether a file at the top of a rules folder is about the repository: README.md, LICENSE."""
    return _DOCUMENT.fullmatch(name) is not None


def is_project_folder(name: str) -> bool:
    """Returns whether a top folder of this name, without a `_category.md`, is not a category: docs, tests."""
    return _FOLDER.fullmatch(name) is not None


def is_notable(name: str) -> bool:
    """Returns whether to name an ignored entry to the user: not if it is hidden or a README."""
    return not name.startswith(".") and not name.lower().startswith("readme")
