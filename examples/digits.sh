#!/usr/bin/env bash
# From scikit-learn's digits to new digits: tokenizer, tokens, NAT, samples.
#
#   examples/digits.sh [FOLDER]
#
# TOKENIZER_STEPS and NAT_STEPS shorten the two trainings.
set -euo pipefail

folder=${1:-runs/digits}
adanat train-tokenizer --dataset digits --output "$folder/tokenizer" ${TOKENIZER_STEPS:+--steps "$TOKENIZER_STEPS"}
adanat tokenize --dataset digits --tokenizer "$folder/tokenizer/model" --output "$folder/tokens" \
    --preview "$folder/preview.png"
adanat pretrain-nat --dataset digits --tokens "$folder/tokens" --model "$folder/tokenizer/model" \
    --output "$folder/nat" ${NAT_STEPS:+--steps "$NAT_STEPS"}
adanat sample --model "$folder/nat/model" -n 100 --steps 8 --output "$folder/samples"
