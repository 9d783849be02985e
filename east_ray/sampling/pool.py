"""Questions -> responses: a Ray Data actor pool of vLLM engines.

Every engine has the questions of many tasks in flight at once (engine.py). A task writes each question to storage
within a second of its last response and hands on only numbers, so what is finished is durable whatever dies next
(journal.py), and only what was in flight is asked again.

Axes in names: Q questions, R responses.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from east_ray.config import EnginePoolConfig, PromptConfig
from east_ray.questions.prompts import load_tokenizer, pretrained
from east_ray.records import SAMPLES
from east_ray.sampling.actor import Sampler
from east_ray.sampling.decoding import Decoding
from east_ray.sampling.journal import adopt, sample_key, sampled_keys, set_aside_keys
from east_ray.storage import Folder, local_copy, model_fingerprint

#: Responses that an engine holds, running, waiting or finished, over those that it computes at once. A task lasts as
#: long as its longest response, so by Little's law the engine stays full if this is above longest over mean length.
_FILLS = 8
#: Responses that an engine without and with a GPU computes at once, if its arguments do not say otherwise.
_MAX_NUM_SEQS, _MAX_NUM_SEQS_GPU = 256, 1024

#: In the engine's process unless the configuration says otherwise: an engine inside its actor dies with it (nothing is
#: orphaned), starts faster, and is stepped by our own thread. Logs: warnings and worse.
_ENGINE_ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}


def context_length(model: str, engine_args: Mapping[str, Any]) -> int:
    """Tokens that a prompt and its response may have together. Raises InputError if the model cannot be read."""
    import transformers

    if "max_model_len" in engine_args:
        return int(engine_args["max_model_len"])
    config = pretrained(transformers.AutoConfig, local_copy(model))
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)


def requests(questions: pa.Table, models: Mapping[str, str], prompt: PromptConfig, decoding: Decoding) -> pa.Table:
    """What is to be asked: every question of every model (name -> path), with the key of its samples."""
    settings = asdict(decoding) | prompt.model_dump()
    tables = []
    for name, path in models.items():
        fingerprint = model_fingerprint(local_copy(path))
        rows = questions.select(_KEYED).to_pylist()
        keys = [sample_key(name, fingerprint, settings, row) for row in rows]
        table = questions.append_column(SAMPLES.field("model"), pa.array([name] * len(keys), pa.string()))
        tables.append(table.append_column(SAMPLES.field("key"), pa.array(keys, pa.string())))
    return pa.concat_tables(tables)


_KEYED = ["question_id", "question"]


def by_architecture(models: Mapping[str, str]) -> list[dict[str, str]]:
    """Models (name -> path) in groups that one engine can serve: of equal configuration, vocabulary and template."""
    groups: dict[str, dict[str, str]] = {}
    for name, path in models.items():
        groups.setdefault(_architecture(local_copy(path)), {})[name] = path
    return list(groups.values())


def _architecture(model: str) -> str:
    import transformers

    config = pretrained(transformers.AutoConfig, model).to_dict()
    told = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
    tokenizer = load_tokenizer(model)
    return json.dumps([told, tokenizer.get_vocab(), tokenizer.chat_template], sort_keys=True, default=str)


#: What a model's configuration says beside the shapes of its parameters and what is computed with them.
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


def sample(
    asked: pa.Table,
    models: Mapping[str, str],
    folder: Folder,
    set_aside: Folder,
    *,
    engines: EnginePoolConfig,
    prompt: PromptConfig,
    decoding: Decoding,
) -> Iterator[dict[str, int]]:
    """Ask `requests` and write the rows (records.SAMPLES) as parts of `folder`; `journal.tidy` then brings it to rest.

    What is there already under its key is not asked again. Questions that engines refuse or die of go to `set_aside`.
    Yields the numbers of each task as it becomes durable: num_questions, num_set_aside, num_responses, num_tokens. The
    models (name -> path) share an architecture; one pool serves them. Raises what an engine raises that cannot start.
    """
    import ray.data

    adopt(folder)
    done = sampled_keys(folder) | set_aside_keys(set_aside)
    unfinished = asked.filter(pa.array([key not in done for key in asked["key"].to_pylist()], pa.bool_()))
    default = _MAX_NUM_SEQS_GPU if engines.num_gpus_per_engine else _MAX_NUM_SEQS
    max_num_seqs = int(engines.engine_args.get("max_num_seqs", default))
    per_task = max(engines.questions_per_task, max_num_seqs // (4 * decoding.responses_per_question))
    tasks_per_engine = max(2, -(-_FILLS * max_num_seqs // (per_task * decoding.responses_per_question)))
    blocks = [unfinished.slice(begin, per_task) for begin in range(0, unfinished.num_rows, per_task)]
    if not blocks:
        return
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), engines, prompt, decoding, folder, set_aside),
        compute=ray.data.ActorPoolStrategy(
            min_size=engines.min_engines,
            max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
            max_tasks_in_flight_per_actor=tasks_per_engine,
            max_concurrent_calls_per_actor=tasks_per_engine,
            enable_true_multi_threading=True,
        ),
        num_cpus=engines.num_cpus_per_engine,
        num_gpus=engines.num_gpus_per_engine or None,
        resources=engines.resources or None,
        runtime_env={"env_vars": _ENGINE_ENV | engines.env},
    )
    yield from results.iter_rows()
