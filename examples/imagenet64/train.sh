#!/usr/bin/env bash
# The recipe of the embedded model: 64 x 64 ImageNet images in 20 classes, on two CPU cores.
#
#   examples/imagenet64/train.sh DATA [FOLDER]
#
# DATA holds train-*.parquet and validation-*.parquet with columns image and label (ImageNet-1k numbering). The model is
# FOLDER/decoder/model. The same command resumes after an interruption. Each of the variables below holds options of one
# stage, and can be set from outside, to shorten it for example.
set -euo pipefail

data=${1:?give the folder of the Parquet files}
folder=${2:-runs/imagenet64}
: "${CLASSES=1 107 145 207 291 301 323 387 779 839 850 873 945 950 963 970 972 973 975 978}"  # empty: all of the data
: "${TOKENIZER:=--updates 3200 --adversarial-start 400}"
: "${NAT:=--updates 4000 --learning-rate 2e-3 --warmup-steps 100}"
: "${FURTHER:=--updates 2200 --learning-rate 1.5e-3 --warmup-steps 100}"
: "${DECODER:=--updates 2000 --learning-rate 4e-4 --warmup-steps 50 --adversarial-start 50}"
: "${FEATURES:=--updates 2000}"
: "${POLICY:=--reward fid --updates 10 --eval-images 500}"
: "${EVALUATION:=-n 2000 --steps 4,8 --schedule cosine --schedule learned}"
: "${SAMPLES:=-n 100}"

images=(--dataset imagenet64 --data-dir "$data")
model=$folder/decoder/model

# Tokenizer and a first NAT see all classes of the data, for 20 classes are few images.
adanat train-tokenizer "${images[@]}" --discriminator efficientnet --decay cosine --half \
    --output "$folder/tokenizer" $TOKENIZER
adanat tokenize "${images[@]}" --tokenizer "$folder/tokenizer/model" --output "$folder/tokens" \
    --preview "$folder/preview.png"
adanat pretrain-nat --dataset imagenet64 --tokens "$folder/tokens" --model "$folder/tokenizer/model" \
    --output "$folder/nat-all" $NAT

# The NAT of all classes is trained further on the 20 alone.
nat=$folder/nat-all/model
if [ -n "$CLASSES" ]; then
    read -ra classes <<< "$CLASSES"
    adanat pretrain-nat --dataset imagenet64 --tokens "$folder/tokens" --from "$nat" "${classes[@]/#/--class=}" \
        --half --output "$folder/nat" $FURTHER
    nat=$folder/nat/model
fi

# The decoder alone goes on, which leaves the tokens and so the NAT as they are.
adanat train-tokenizer "${images[@]}" --from "$nat" --freeze-encoder --discriminator efficientnet \
    --decay cosine --half --output "$folder/decoder" $DECODER

# Real images that were held out, in the features of a small network, which chooses the policies, and of
# EfficientNet-Lite1, which trains nothing.
[ -e "$model/features/reference.npz" ] || adanat stats "${images[@]}" --split validation --model "$model" \
    --install --half --output "$folder/small.npz" $FEATURES
[ -e "$model/references/efficientnet.npz" ] || adanat stats "${images[@]}" --split validation --model "$model" \
    --protocol efficientnet --install --output "$folder/efficientnet.npz"

# Policies start from the cosine schedule with 12 times its guidance scale, and 3 (4 steps) or 4 times (8 steps) its
# re-masking temperature, which EfficientNet-Lite1's recognition chose (see README.md).
for steps in 4 8; do
    adanat train-policy "${images[@]}" --model "$model" --steps "$steps" --install --half \
        --base "table:$(dirname "$0")/guided-$steps.yaml" \
        --output "$folder/policy-$steps" $POLICY
done

adanat evaluate --model "$model" --protocol efficientnet --seed 1 --record --output "$folder/evaluation" $EVALUATION
adanat sample --model "$model" --steps 8 --output "$folder/samples" $SAMPLES
