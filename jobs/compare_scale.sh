#!/usr/bin/env bash
# Does the effect depend on the size of the model? Runs a comparison for several models. One report has
# all of them side by side, with a page on the effect by size (jobs/compare_scale.py).
#
#     jobs/compare_scale.sh runs/scale jobs/compare_paper.yaml meta-llama/Llama-3.2-1B-Instruct meta-llama/Llama-3.2-3B-Instruct
#     jobs/compare_scale.sh runs/scale jobs/compare_quickstart.yaml MODEL... compare.seeds='[0, 1]'
#
# KEY=VALUE are settings of every comparison. The same command resumes an interrupted run.
set -euo pipefail
usage="usage: jobs/compare_scale.sh WHERE CONFIG_FILE MODEL... [KEY=VALUE]..."
root=${1:?$usage}
file=${2:?$usage}
shift 2
models=() overrides=() runs=()
for word in "$@"; do
  if [[ $word == *=* ]]; then overrides+=("$word"); else models+=("$word"); fi
done
for model in "${models[@]:?$usage}"; do
  name=${model%/}
  run="$root/${name//\//_}"
  east-ray compare "$file" model="$model" run_dir="$run" "${overrides[@]}"
  runs+=("$run")
done
[ ${#runs[@]} -ge 2 ] || exit 0
python "$(dirname "$0")/compare_scale.py" "${runs[@]}"
east-ray report "${runs[@]}" --output "$root/side_by_side.html"
