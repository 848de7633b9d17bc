#!/usr/bin/env bash
# From scikit-learn's digits to new digits: tokenizer, tokens, NAT, samples.
#
#   examples/digits.sh [FOLDER]
#
# TOKENIZER_UPDATES and NAT_UPDATES shorten the two trainings.
set -euo pipefail

folder=${1:-runs/digits}
adanat train-tokenizer --dataset digits --output "$folder/tokenizer" ${TOKENIZER_UPDATES:+--updates "$TOKENIZER_UPDATES"}
adanat tokenize --dataset digits --tokenizer "$folder/tokenizer/model" --output "$folder/tokens" \
    --preview "$folder/preview.png"
adanat pretrain-nat --dataset digits --tokens "$folder/tokens" --model "$folder/tokenizer/model" \
    --output "$folder/nat" ${NAT_UPDATES:+--updates "$NAT_UPDATES"}
adanat sample --model "$folder/nat/model" -n 100 --steps 8 --output "$folder/samples"
