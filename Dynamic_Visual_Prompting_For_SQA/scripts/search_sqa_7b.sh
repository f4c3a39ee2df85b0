#!/usr/bin/env bash
# Find K for LLaMA-7B on ScienceQA, two GPUs. Further settings may follow: scripts/search_sqa_7b.sh seed=1
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python}" run.py with dvp_search_llama_sqa data_root=./datasets num_gpus=2 per_gpu_batchsize=8 "$@"
