#!/usr/bin/env bash
# Does weighting help a language model that others made? From nothing to a table, on two CPU cores, in an hour and a half.
#
#     jobs/real_model.sh runs/real_model
#
# SmolLM2-135M-Instruct learns the form of a solution from worked ones (jobs/real_model_warm_start.yaml). Its responses
# to other questions are sampled once. Then uniform weights are compared with weights by entropy, with right references,
# and again after a fifth of the references became wrong answers of the model's own (jobs/real_model.yaml).
#
# KEY=VALUE are settings of both comparisons. The same command resumes an interrupted study, and trains what is new:
#
#     jobs/real_model.sh runs/real_model \
#       compare.grids='[{signals: [uniform, entropy], exponents: [0.5, 1, 1.5]}, {signals: [accuracy]}]'
#
# The environment variables WARM_START, POOL and HELD_OUT are the numbers of questions to learn the form from, to sample
# and to measure with.
set -euo pipefail
root=${1:?"usage: jobs/real_model.sh WHERE [KEY=VALUE]..."}
shift
jobs=$(dirname "$0")
mkdir -p "$root"

if [ ! -e "$root/smollm2" ]; then
  rm -rf "$root/smollm2.part"
  python "$jobs/smollm2.py" "$root/smollm2.part"
  mv "$root/smollm2.part" "$root/smollm2"
fi

# Writes NAME.jsonl, by SEED and COUNT, without the questions of other files. A run resumes only if the files that it
# reads are untouched, so one that is there already and the same is left alone.
questions() {
  python "$jobs/quickstart/word_problems.py" --steps 1:0.5,2:0.3,3:0.2 --out "$root/$1.tmp" --seed "$2" --count "$3" \
    --exclude "${@:4}"
  if cmp --silent "$root/$1.tmp" "$root/$1.jsonl"; then rm "$root/$1.tmp"; else mv "$root/$1.tmp" "$root/$1.jsonl"; fi
}
questions held_out 1 "${HELD_OUT:-500}"
questions warm_start 2 "${WARM_START:-480}" "$root/held_out.jsonl"
questions pool 3 "${POOL:-250}" "$root/held_out.jsonl" "$root/warm_start.jsonl"

held_out="evaluation.questions.path=$root/held_out.jsonl"
east-ray run "$jobs/real_model_warm_start.yaml" run_dir="$root/warm_start" model="$root/smollm2" \
  questions.path="$root/warm_start.jsonl" "$held_out"

model="model=$root/warm_start/round_0/model"
east-ray sample "$jobs/real_model.yaml" run_dir="$root/pool" "$model" questions.path="$root/pool.jsonl" "$held_out"

python "$jobs/real_model.py" references "$root"
for references in right own; do
  east-ray compare "$jobs/real_model.yaml" run_dir="$root/$references" "$model" questions=null \
    samples="{path: $root/$references.parquet, id_column: question_id}" "$held_out" "$@"
done
python "$jobs/real_model.py" table "$root"
