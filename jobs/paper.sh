#!/usr/bin/env bash
# Submit the paper's twelve experiments (arXiv 2503.23913, table 1) to a Ray cluster, one job after another.
#
#     RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 RAY_AUTH_MODE=token jobs/paper.sh s3://BUCKET/paper
#
# Each job writes its run directory below the given address, and trains once with EAST's weights and once with uniform
# ones. Submitting again resumes interrupted jobs.
set -euo pipefail
root=${1:?"usage: jobs/paper.sh WHERE, e.g. s3://BUCKET/paper"}
cd "$(dirname "$0")/.."

for size in 1b 8b; do
  model=(); [ "$size" = 8b ] && model=(model=meta-llama/Llama-3.1-8B-Instruct training.micro_batch_size=1)
  for benchmark in gsm8k math; do
    for objective in sft dpo kto; do
      rate=2e-7; [ "$objective" = sft ] && rate=2e-6
      ray job submit --working-dir . -- python -m east_ray run "jobs/paper_$benchmark.yaml" \
        run_dir="$root/${benchmark}_${size}_$objective" training.objective="$objective" \
        training.learning_rate="$rate" "${model[@]}"
    done
  done
done
