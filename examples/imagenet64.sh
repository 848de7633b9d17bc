#!/usr/bin/env bash
# The recipe of the embedded model: 64 x 64 ImageNet images in 20 classes, on two CPU cores.
#
#   examples/imagenet64.sh DATA [FOLDER]
#
# DATA holds train-*.parquet and validation-*.parquet with columns image and label (ImageNet-1k numbering).
# TOKENIZER_UPDATES and NAT_UPDATES shorten the two trainings.
set -euo pipefail

data=${1:?give the folder of the Parquet files}
folder=${2:-runs/imagenet64}
classes=(1 107 145 207 291 301 323 387 779 839 850 873 945 950 963 970 972 973 975 978)

# The tokenizer sees all classes, so that it serves any subset.
adanat train-tokenizer --dataset imagenet64 --data-dir "$data" --half --output "$folder/tokenizer" \
    ${TOKENIZER_UPDATES:+--updates "$TOKENIZER_UPDATES"}
adanat tokenize --dataset imagenet64 --data-dir "$data" --tokenizer "$folder/tokenizer/model" \
    "${classes[@]/#/--class=}" --output "$folder/tokens" --preview "$folder/preview.png"
adanat pretrain-nat --dataset imagenet64 --tokens "$folder/tokens" --model "$folder/tokenizer/model" --half \
    --output "$folder/nat" ${NAT_UPDATES:+--updates "$NAT_UPDATES"}
adanat sample --model "$folder/nat/model" -n 100 --steps 8 --output "$folder/samples"
