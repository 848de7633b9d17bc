"""``adanat push``: put a model or a token set on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adanat_cli.commands import console, options
from adanat_cli.core.errors import AdaNATError

if TYPE_CHECKING:
    from adanat_cli.jobs.runtime.reporter import Reporter


def command(
    source: Annotated[
        str, typer.Argument(help="Model folder or name; folder of a token set with --tokens.", metavar="MODEL")
    ],
    repo: Annotated[str, typer.Argument(help="Hub id user/repo\\[@branch].", metavar="USER/REPO")],
    tokens: Annotated[bool, typer.Option("--tokens", help="Push a token set, as a data set.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str, typer.Option("--revision", help="Branch to push to; made if missing.")] = "",
    message: Annotated[str, typer.Option("--message", help="Of the commit.")] = "",
    license_name: Annotated[
        str,
        typer.Option("--license", help="Of the weights, for the card, such as mit; by default what the model tells."),
    ] = "",
    samples: Annotated[
        int, typer.Option("--samples", help="Images to draw for the card; 0 draws no pictures.", min=0)
    ] = 16,
    device: options.Device = "",
    as_json: options.Json = False,
) -> None:
    """Push a model or a token set, with a card: results, use, samples, the policies' curves, how it was trained."""
    from adanat_cli.core.config.requests import PushRequest
    from adanat_cli.jobs.share.push import push

    if revision and "@" in repo:
        raise typer.BadParameter("Give the branch once: as --revision, or after the @.")
    request = PushRequest(
        source=source,
        repo=f"{repo}@{revision}" if revision else repo,
        kind="tokens" if tokens else "model",
        private=private,
        message=message,
        license=license_name,
        num_images=samples,
        device=device,
    )
    values = push(request, console.reporter())
    console.result(values, as_json, _lines(values))


def check(repo: str) -> None:
    """Check ``--push-to-hub`` before a run begins; "" asks for nothing."""
    if repo:
        from adanat_cli.jobs.share.push import check_push

        check_push(repo)


def after_run(
    values: dict[str, Any], repo: str, source: str, reporter: Reporter, tokens: bool = False
) -> dict[str, Any]:
    """Push what a run has made, if that was asked for; returns the run's result with where it went."""
    if not repo:
        return values
    from adanat_cli.core.config.requests import PushRequest
    from adanat_cli.jobs.share.push import push

    try:
        pushed = push(PushRequest(source, repo, "tokens" if tokens else "model"), reporter)
    except AdaNATError as error:
        flag = " --tokens" if tokens else ""
        raise AdaNATError(
            f"The run is done and its result is in {source}. {error} Later: adanat push {source} {repo}{flag}"
        ) from error
    return {**values, "pushed": {key: pushed[key] for key in ("url", "commit")}}


def _lines(values: dict[str, Any]) -> Iterator[str]:
    """The result for people."""
    yield f"Pushed to {values['url']} ({values['revision']}, commit {values['commit'][:12]})"
    for name, num_bytes in values["files"].items():
        yield f"  {name}, {num_bytes / 1e3:,.0f} kB"
