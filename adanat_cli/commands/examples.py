"""Worked examples at the end of every help page; tests parse each of them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "sample": (
        ("Eight golden retrievers", "adanat sample --class 'golden retriever' -n 8 --steps 8"),
        ("One lion, and how it was generated", "adanat sample --class lion -n 1 --trace --output lion"),
    ),
    "edit": (
        ("Another animal in the middle of a picture", "adanat edit dog.png --box 16,16,32,32 --class lion"),
        ("Four ways to go on to the right", "adanat edit shore.png --extend right=32 --class seashore -n 4"),
    ),
    "studio": (
        ("A page with the embedded model, opened in the browser", "adanat studio --browser"),
        ("Your own model, on another port", "adanat studio --model runs/digits-nat/model --port 8000"),
    ),
    "tokenize": (
        (
            "Tokens of your own images",
            "adanat tokenize --dataset photos/ --tokenizer imagenet64 --output tokens/photos",
        ),
        (
            "How well a tokenizer keeps images",
            "adanat tokenize -d digits -m runs/digits/model --preview look.png --preview-only",
        ),
    ),
    "pretrain-nat": (
        (
            "Train the embedded model further on your tokens",
            "adanat pretrain-nat --dataset photos/ --tokens tokens/photos --from imagenet64 --output runs/photos",
        ),
        (
            "Repeat a run with another batch size",
            "adanat pretrain-nat -d photos/ -t tokens/photos --config runs/photos/config.json --batch-size 64 -o again",
        ),
    ),
    "train-policy": (
        (
            "A policy for 4 steps of the embedded model",
            "adanat train-policy --dataset imagenet64 --data-dir DATA --steps 4 --reward fid",
        ),
        (
            "Its settings, to change and pass back",
            "adanat train-policy --dataset imagenet64 --steps 4 --print-config",
        ),
    ),
    "train-tokenizer": (
        ("On scikit-learn's digits", "adanat train-tokenizer --dataset digits --output runs/digits-tokenizer"),
        ("What a run on your own images would do", "adanat train-tokenizer --dataset photos/ --dry-run"),
    ),
    "evaluate": (
        (
            "Two schedules, at 4 and 8 steps",
            "adanat evaluate -n 1000 --steps 4,8 --schedule cosine --schedule learned",
        ),
        ("A folder of images against a reference", "adanat evaluate --images samples --ref stats.npz"),
    ),
    "reproduce": (
        ("What the embedded model records of itself, of fewer images", "adanat reproduce imagenet64 -n 200"),
        ("What a published figure takes, and what is missing", "adanat reproduce imagenet256 --steps 16 --dry-run"),
    ),
    "stats": (
        (
            "A reference of validation images",
            "adanat stats -d imagenet64 --data-dir DATA --split validation --output stats.npz",
        ),
        (
            "The model's own reference",
            "adanat stats -d digits --split validation -m runs/digits/model --install -o stats.npz",
        ),
    ),
    "bench": (
        ("The embedded model on this machine", "adanat bench"),
        ("A large NAT of random weights, sampling only", "adanat bench --size large --measure sample --steps 8"),
    ),
    "import": (
        (
            "A tokenizer and a NAT of the authors",
            "adanat import vqgan_jax_strongaug.ckpt MaskGIT-L.pth --output models/imagenet256",
        ),
        (
            "A policy for 16 steps",
            "adanat import maskgit_policy.pth --steps 16 --output models/imagenet256",
        ),
    ),
    "pull": (
        ("A model from the Hub", "adanat pull you/digits-nat --output models/digits"),
        (
            "The authors' weights, with a tokenizer that is here",
            "adanat pull imagenet256 --tokenizer-file vqgan_jax_strongaug.ckpt",
        ),
    ),
    "push": (
        ("A model to the Hub", "adanat push runs/digits-nat/model you/digits-nat --license mit"),
        ("A private token set", "adanat push tokens/digits you/digits-tokens --tokens --private"),
    ),
    "info": (
        ("The embedded model: sizes, classes, results", "adanat info"),
        ("What a benchmark's numbers are made with", "adanat info --dataset imagenet256"),
    ),
}
"""Command -> what each line does, and the line."""


def epilog(command: str) -> str:
    """The end of a command's help page, in Rich's markup; "" where it has no examples yet."""
    if command not in EXAMPLES:
        return ""
    lines = (f"[dim]{words}:[/dim]\n{line}" for words, line in EXAMPLES[command])
    return "\n".join(["[bold]Examples[/bold]", *lines])
