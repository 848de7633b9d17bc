#!/usr/bin/env bash
# The recipe for one GPU: all classes of the data, 16 x 16 tokens, a NAT of 18 M parameters, compiled, in bf16.
#
#   examples/imagenet64/gpu.sh DATA [FOLDER]
#
# Its stages, files and variables are those of train.sh. Where a machine is lent for ten minutes at a time,
#
#   timeout 580 examples/imagenet64/gpu.sh DATA [FOLDER]
#
# ends in time: every training saves its state when it is told to end, and the same command goes on.
set -euo pipefail

export CLASSES=""
: "${TOKENIZER:=--downsampling 4 --codebook-size 2048 --updates 6000 --batch-size 128 --adversarial-start 600}"
: "${NAT:=--size mini --updates 20000 --batch-size 512 --learning-rate 1e-3 --warmup-steps 500 --precision bf16 --compile}"
: "${DECODER:=--updates 2000 --batch-size 128 --learning-rate 4e-4 --warmup-steps 50 --adversarial-start 50}"
: "${POLICY:=--discriminator efficientnet --updates 200 --trajectories 1024 --eval-images 2000}"
export TOKENIZER NAT DECODER POLICY
exec "$(dirname "$0")/train.sh" "$1" "${2:-runs/imagenet64-gpu}"
