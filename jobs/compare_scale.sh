#!/usr/bin/env bash
# Does it depend on the size of the model? The same comparison for each of some models, then one page with all of them.
#
#     jobs/compare_scale.sh runs/scale jobs/compare_paper.yaml meta-llama/Llama-3.2-1B-Instruct meta-llama/Llama-3.2-3B-Instruct
#
# Each run goes on where it stopped if the same command is given again.
set -euo pipefail
root=${1:?"usage: jobs/compare_scale.sh WHERE CONFIG_FILE MODEL..."}
file=${2:?"usage: jobs/compare_scale.sh WHERE CONFIG_FILE MODEL..."}
shift 2
runs=()
for model in "$@"; do
  run="$root/$(basename "$model")"
  east-ray compare "$file" model="$model" run_dir="$run"
  runs+=("$run")
done
[ ${#runs[@]} -lt 2 ] || east-ray report "${runs[@]}" --output "$root/side_by_side.html"
