#!/usr/bin/env bash
# Does the effect depend on the size of the model? On a CPU: the quick start's model of 1.1 million parameters, one like
# it of 5 million (jobs/quickstart/make_model.py), and SmolLM2-135M-Instruct after a warm start, on the same questions.
#
#     jobs/three_sizes.sh runs/three_sizes
#
# KEY=VALUE are settings of all three comparisons. The same command resumes an interrupted run. Larger models of one
# family are compared by jobs/compare_scale.sh.
set -euo pipefail
root=${1:?"usage: jobs/three_sizes.sh WHERE [KEY=VALUE]..."}
shift
jobs=$(dirname "$0")
mkdir -p "$root"

[ -e "$root/model_5m/README.md" ] ||  # which is written last
  python "$jobs/quickstart/make_model.py" --hidden-size 256 --layers 5 --out "$root/model_5m"
if [ ! -e "$root/smollm2" ]; then
  rm -rf "$root/smollm2.part"
  python "$jobs/smollm2.py" "$root/smollm2.part"
  mv "$root/smollm2.part" "$root/smollm2"
fi
# Without the questions of the comparisons, which the two smaller models have not seen either.
if [ ! -e "$root/warm_start.jsonl" ]; then
  python "$jobs/quickstart/word_problems.py" --steps 1:0.5,2:0.3,3:0.2 --out "$root/warm_start.tmp" --seed 2 --count 480 \
    --exclude "$jobs/quickstart/train.jsonl" "$jobs/quickstart/test.jsonl"
  mv "$root/warm_start.tmp" "$root/warm_start.jsonl"
fi
east-ray run "$jobs/real_model_warm_start.yaml" run_dir="$root/warm_start" model="$root/smollm2" \
  questions.path="$root/warm_start.jsonl" evaluation.questions=null

# Compares in the run directory NAME, by FILE and MODEL.
compare() {
  east-ray compare "$2" run_dir="$root/$1" model="$3" \
    questions.path="$jobs/quickstart/train.jsonl" questions.max_questions=250 sampling.responses_per_question=16 \
    evaluation.questions.path="$jobs/quickstart/test.jsonl" evaluation.questions.max_questions=500 \
    compare.seeds='[0, 1, 2]' compare.grids='[{signals: [uniform, entropy]}]' "${@:4}"
}
compare 1.1m "$jobs/compare_quickstart.yaml" "$jobs/quickstart/model" "$@"
compare 5m "$jobs/compare_quickstart.yaml" "$root/model_5m" "$@"
compare 135m "$jobs/real_model.yaml" "$root/warm_start/round_0/model" "$@"

runs=("$root/1.1m" "$root/5m" "$root/135m")
python "$jobs/compare_scale.py" "${runs[@]}"
east-ray report "${runs[@]}" --output "$root/side_by_side.html"
