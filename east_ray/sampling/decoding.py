"""How responses are drawn from the model's distribution.."""

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Decoding:
    """How responses are drawn from the model's distribution. Temperature 0 is greedy; seed None is not reproducible."""

    responses_per_question: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def seed_of(self, question_id: str) -> int | None:
        """The seed of one question's request: the same whatever the order of questions and the number of engines."""
        if self.seed is None or self.temperature == 0:
            return None
        return int.from_bytes(hashlib.blake2b(f"{self.seed}:{question_id}".encode(), digest_size=4).digest()) >> 1

    def params(self, question_id: str) -> Any:
        """vllm.SamplingParams of one question's request, for all its responses."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=self.responses_per_question,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            seed=self.seed_of(question_id),
            logprobs=0,  # of the sampled token alone: what the sum over the response needs
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
