"""The model of a demo: the packaged adapters, a folder, a model of the Hugging Face hub, or an endpoint."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from demo.learn import model_problem
from demo.runner import BASE_MODEL, MODEL, DemoError, display_path
from trainer.models.packaged_adapters import FOLDER, MANIFEST

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
SHORT = "--max-tokens 48 --max-turns 3"
"""A model of 135 million parameters only repeats itself in longer replies."""
LONG = "--max-tokens 512 --max-turns 6"


@dataclass(frozen=True)
class ModelSource:
    """A model, and the parts of commands that use it, quoted for the shell."""

    label: str
    """Name on the page."""
    name: str
    """Name in requests."""
    url: str = MODEL
    serves: str = ""
    """Folder that `transformers serve` serves; empty for an endpoint."""
    limits: str = LONG
    prepare: str = ""
    """Command that writes the folders; empty if there is nothing to write."""
    learns: str | None = None
    """Folder of the model whose decision act 3 trains; None leaves act 3 out."""
    why_no_learning: str = ""
    inputs: tuple[Path, ...] = ()
    """Files that identify the model besides its name."""
    packaged: bool = False
    """Whether the model is the packaged one."""


def resolve_model(name: str | None) -> ModelSource:
    """Returns the model for a folder, a hub name or a URL; None for the packaged one.

    Raises:
        DemoError: it is none of these, or it cannot be reached.
    """
    if name is None:
        return ModelSource(
            "SmolLM2-135M",
            f"{BASE_MODEL}-cold-start",
            serves=f"{BASE_MODEL}-cold-start",
            limits=SHORT,
            prepare=f"ascl-train local-model --dir {BASE_MODEL} --adapter cold-start --adapter locked-in",
            learns=f"{BASE_MODEL}-locked-in",
            inputs=(FOLDER / MANIFEST,),
            packaged=True,
        )
    if re.match(r"https?://", name):
        model = os.environ.get("ASCL_MODEL") or first_model(name)
        why = "it changes the weights of the model, which an endpoint does not hand out"
        return ModelSource(model, shlex.quote(model), url=shlex.quote(name.rstrip("/")), why_no_learning=why)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not _HUB_NAME.fullmatch(name):
            raise DemoError(
                f"MODEL '{name}' is not a folder, a name on the Hugging Face hub such as "
                "Qwen/Qwen3-0.6B, or an http(s) URL"
            )
        folder = download(name)
    if not (folder / "config.json").is_file():
        raise DemoError(f"MODEL '{name}' has no config.json: pass the folder of a model")
    path = shlex.quote(display_path(folder.resolve()))
    problem = model_problem(folder)
    return ModelSource(
        name,
        path,
        serves=path,
        learns=None if problem else path,
        why_no_learning=problem or "",
        inputs=(folder / "config.json",),
    )


def download(name: str) -> Path:
    """Downloads a model from the Hugging Face hub, or returns the copy in its cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError) as error:  # its own errors derive from these
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DemoError(
            f"the model '{name}' cannot be downloaded ({reason}): pass a folder instead"
        ) from None


def first_model(url: str) -> str:
    """Returns the name of the first model that an OpenAI-compatible endpoint lists."""
    import httpx2

    key = os.environ.get("OPENAI_API_KEY")
    try:
        response = httpx2.get(
            f"{url.rstrip('/')}/models",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=30,
        )
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise DemoError(
            f"the endpoint {url} does not list a model ({type(error).__name__}): check the URL, which "
            "usually ends in /v1, or set ASCL_MODEL to the model's name"
        ) from None
