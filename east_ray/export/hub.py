"""A folder of data or a model -> a repository of the Hugging Face hub, with its card."""

import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow.fs as pafs

from east_ray.config import InputError
from east_ray.export.files import Source, Written
from east_ray.export.shapes import Form
from east_ray.report.files import dataset_card
from east_ray.storage import local_copy, locate

#: Where the token is taken from, and from nowhere else: not from the file that `hf auth login` writes.
TOKEN = "HF_TOKEN"  # noqa: S105 - the name of the variable


def require_token() -> str:
    """The token of the hub; raises InputError if the environment has none."""
    if not (token := os.environ.get(TOKEN, "").strip()):
        raise InputError(f"--push-to-hub: the environment variable {TOKEN} has no token of the hub")
    return token


def push_data(name: str, source: Source, form: Form, written: Written, *, private: bool) -> str:
    """Upload a file of examples with its card; returns the address of the repository. Raises InputError."""
    filesystem, inner = locate(written.path)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, PurePosixPath(inner).name)
        pafs.copy_files(inner, str(file), source_filesystem=filesystem)
        columns = {field.name: str(field.type) for field in form.schema}
        card = dataset_card(source.settings, source.number, file.name, written.num_rows, form.shape, columns)
        Path(scratch, "README.md").write_text(card, encoding="utf-8")
        return _upload(name, "dataset", scratch, private=private)


def push_model(name: str, model: str, *, private: bool) -> str:
    """Upload a trained model, whose folder has its card already; returns the address. Raises InputError."""
    return _upload(name, "model", local_copy(model), private=private)


def check_name(name: str) -> None:
    """Raises InputError for a name that no repository can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push-to-hub {name}: {' '.join(str(error).split())}") from error


def _upload(name: str, kind: Literal["dataset", "model"], folder: str, *, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library that it has

    api = HfApi(token=require_token())
    try:
        repository = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repository.repo_id, repo_type=kind).private:
            raise InputError(f"--push-to-hub {name}: it is there and is public; add --public, or choose another name")
        api.upload_folder(
            repo_id=repository.repo_id, repo_type=kind, folder_path=folder, commit_message="Exported by east-ray"
        )
    except (HTTPError, OSError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"--push-to-hub {name}: the hub at {api.endpoint} has not taken it ({said})") from error
    return str(repository)
