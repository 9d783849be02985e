"""The pure modules import where neither Ray nor torch, vLLM or transformers is installed."""

import subprocess
import sys

HEAVY = ("ray", "torch", "vllm", "transformers", "deepspeed")


PURE = (
    "answers",
    "answers.equality",
    "config",
    "config.files",
    "config.messages",
    "config.documentation",
    "config.settings",
    "console",
    "doors",
    "evaluation.abstention",
    "evaluation.estimators",
    "evaluation.significance",
    "examples",
    "questions.prompts",
    "questions.source",
    "records",
    "report.audit",
    "report.page",
    "report.plots",
    "report.sections",
    "report.studies",
    "report.summary",
    "report.terminal",
    "sampling.given",
    "sampling.journal",
    "selection",
    "serving.chat",
    "serving.gate",
    "serving.settings",
    "serving.solving",
    "storage",
    "storage.folders",
    "storage.models",
    "training.batches",
    "training.checkpoints",
    "training.objectives",
    "training.objectives.dpo",
    "training.objectives.kto",
    "training.objectives.sft",
    "training.reference",
    "training.tracking",
    "weighting",
)


def test_pure_modules_need_no_heavy_package() -> None:
    """All in one process: whichever fails is named by its traceback."""
    forbidden = (
        f"import sys, importlib; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        "for module in sys.argv[1:]: importlib.import_module(f'east_ray.{module}')"
    )
    result = subprocess.run([sys.executable, "-c", forbidden, *PURE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_losses_need_torch_alone() -> None:
    others = tuple(name for name in HEAVY if name != "torch")
    forbidden = f"import sys; sys.modules.update(dict.fromkeys({others!r})); import east_ray.training.logprobs"
    result = subprocess.run([sys.executable, "-c", forbidden], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_command_line_answers_at_once() -> None:
    loaded = "import sys; import east_ray.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", loaded, *HEAVY], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
