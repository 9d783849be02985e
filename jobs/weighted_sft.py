"""Train with TRL on weighted examples: its SFTTrainer, with the column `weight` in its loss.

    east-ray export RUN --as prompt-completion --output examples.jsonl
    python jobs/weighted_sft.py MODEL examples.jsonl OUTPUT [KEY=VALUE of trl.SFTConfig, e.g. num_train_epochs=3]...

Needs `pip install trl`; tested with TRL 1.16.
"""

import sys
from typing import Any

import torch
import yaml
from datasets import load_dataset
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer


def _weights(rows: Any) -> dict[str, torch.Tensor]:
    """The weights of a micro-batch, if all rows have one."""
    weights = [row.get("weight") for row in rows]
    return {} if None in weights else {"weight": torch.tensor(weights)}


class WeightedSFTTrainer(SFTTrainer):  # type: ignore[misc]  # without TRL's types
    """SFTTrainer whose loss is sum_i w_i * sum_t nll(y_it) / tokens of the step: the weight is each example's own.

    Without packing and padding_free, which put several examples into a row.
    """

    data_collator: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.packing or self.padding_free:
            raise ValueError("packing and padding_free lose the weights")
        if self.args.loss_type != "nll" or self.args.label_smoothing_factor:
            raise ValueError("loss_type other than nll and label_smoothing_factor are not in the weighted loss")
        collate = self.data_collator
        self.data_collator = lambda rows: collate(rows) | _weights(rows)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted loss; the denominator is that of all micro-batches and workers together."""
        labels = inputs.pop("labels")[:, 1:]
        if (weights := inputs.pop("weight", None)) is None:  # as in a set for evaluation
            if model.training:
                raise ValueError("a row has no `weight`: export the examples without --bare")
            weights = torch.ones(len(labels), device=labels.device)
        outputs = model(**inputs, use_cache=False)
        # (B, T - 1), and 0 where a label is -100
        nll = cross_entropy(outputs.logits[:, :-1].float().transpose(1, 2), labels, reduction="none")
        num_tokens = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        # The mean over workers is taken; the denominator is already that of all, if the tokens are averaged over them.
        are_summed = num_items_in_batch is not None and self.args.average_tokens_across_devices
        num_workers = self.accelerator.num_processes if are_summed else 1
        loss = num_workers * (weights[:, None] * nll).sum() / num_tokens
        return (loss, outputs) if return_outputs else loss


def main(model: str, examples: str, output: str, *settings: str) -> None:
    """Train a model on a file of examples and write it."""
    kind = "parquet" if examples.endswith(".parquet") else "json"
    changes = {key: yaml.safe_load(value) for key, _, value in (setting.partition("=") for setting in settings)}
    on_cpu = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    config = SFTConfig(output_dir=output, **{"report_to": "none"} | on_cpu | changes)
    trainer = WeightedSFTTrainer(model, config, train_dataset=load_dataset(kind, data_files=examples, split="train"))
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
