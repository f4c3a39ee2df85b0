#!/usr/bin/env bash
# Train LLaMA-7B on ScienceQA at the K that the search found, two GPUs; or at another: scripts/finetuning_sqa_7b.sh insert_layer=3
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python}" run.py with dvp_adaption_llama_sqa data_root=./datasets num_gpus=2 per_gpu_batchsize=8 insert_layer=auto "$@"
