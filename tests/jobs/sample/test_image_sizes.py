"""A tokenizer serves images of other sizes than its own, all the way to samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from adanat_cli.core.config import NATTrainingConfig
from adanat_cli.core.config.requests import SampleRequest, TokenizeOptions, TokenizeRequest
from adanat_cli.core.config.settings import NATSettings
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.tokenize.tokenize import run_tokenize
from adanat_cli.jobs.train.nat import pretrain_nat
from tests.image_files import write_class_folder
from tests.nat_toy import make_model

SIZE = 32  # the tokenizer's own is 16


def test_twice_the_tokenizers_size_goes_from_images_to_samples(tmp_path: Path) -> None:
    model = str(make_model(tmp_path / "model").path)
    images = write_class_folder(tmp_path / "images", 8, size=SIZE)
    request = TokenizeRequest(
        dataset=str(images),
        data={"image_size": SIZE},
        classes=(),
        model=model,
        output=tmp_path / "tokens",
        preview=tmp_path / "preview.png",
        device="cpu",
        options=TokenizeOptions(),
    )
    assert run_tokenize(request, SilentReporter())["info"]["grid"] == [8, 8]
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.height == 2 * SIZE + 2
    training = NATTrainingConfig(steps=1, batch_size=4, warmup_steps=1, precision="fp32")
    run = NATSettings("images", tmp_path / "tokens", "micro", training, tmp_path / "run", model, device="cpu")
    trained = pretrain_nat(run, SilentReporter())["model"]
    asked = SampleRequest(
        output=tmp_path / "samples",
        model=trained,
        num_images=3,
        num_steps=2,
        image_format="npz",
        trace=True,
        device="cpu",
    )
    sample(asked, SilentReporter())
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        assert arrays["arr_0"].shape == (3, SIZE, SIZE, 3)
    assert len(list((tmp_path / "samples").glob("*_trace.png"))) == 3
