"""A Hub, a client that knows no other, and a toy model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.share_requests import PushRequest
from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.share.push import push
from tests.hub.server import TOKEN, HubServer, running_hub
from tests.policy_toy import make_policy_toy


def use_hub(patch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Point the client at a Hub and an empty cache, as its environment variables would at its import."""
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture(scope="session")
def server() -> Iterator[HubServer]:
    with running_hub() as server:
        yield server
    close_session()


@pytest.fixture
def hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The Hub, with a client whose cache is empty and which does not wait between two tries."""
    use_hub(monkeypatch, server.url, tmp_path / "home")
    for place in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{place}.time.sleep", lambda seconds: None)
    server.log.clear()
    yield server
    server.faults.clear()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A tokenizer, a NAT, a feature network, policies for 2 and 3 steps, and a result."""
    folder = ModelFolder(make_policy_toy(tmp_path_factory.mktemp("toy")) / "model")
    for num_steps in (2, 3):
        config = PolicyConfig(
            feature_width=16,
            grid=(4, 4),
            num_steps=num_steps,
            hidden_width=16,
            nat_fingerprint=folder.fingerprint("nat"),
        )
        policy = PolicyNetwork(config)
        torch.nn.init.normal_(policy.linear3.bias)  # a fresh policy would be the fixed schedule
        folder.write(policy_component(num_steps), config.to_dict(), policy.state_dict())
    folder.put_results([{"metric": "fid", "value": 12.5, "dataset": "toys", "protocol": "clean", "num_images": 64}])
    return folder


@pytest.fixture(scope="session")
def pushed(server: HubServer, model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy model on the Hub; its id."""
    with pytest.MonkeyPatch.context() as patch:
        use_hub(patch, server.url, tmp_path_factory.mktemp("home"))
        push(PushRequest(str(model.path), "tester/toy", num_images=4, device="cpu"), SilentReporter())
    return "tester/toy"
