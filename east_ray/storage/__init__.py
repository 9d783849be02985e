"""Folders on any file system, models, and the run directory."""

from east_ray.storage.folders import Folder, locate, resolve_path
from east_ray.storage.models import local_copy, model_fingerprint, resolve_model
from east_ray.storage.rounds import RunDirectory, StageRecord, Stages, counts_by, load_run

__all__ = ["Folder", "RunDirectory", "StageRecord", "Stages", "counts_by", "load_run"]
__all__ += ["local_copy", "locate", "model_fingerprint", "resolve_model", "resolve_path"]
