"""How responses are drawn from the model's distribution."""

import hashlib
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Decoding:
    """How responses are drawn from the model's distribution. Temperature 0 is greedy; seed None is not reproducible."""

    responses_per_question: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def of_question(self, question_id: str) -> "Decoding":
        """This decoding with the seed of one question's request."""
        return replace(self, seed=self.seed_of(question_id))

    def seed_of(self, question_id: str) -> int | None:
        """The seed of one question's request: the same whatever the order of questions and the number of engines."""
        if self.seed is None or self.temperature == 0:
            return None
        return int.from_bytes(hashlib.blake2b(f"{self.seed}:{question_id}".encode(), digest_size=4).digest()) >> 1
