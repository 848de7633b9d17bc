"""``adanat bench``: speed, operations and memory on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.commands.tables import drawn
from adanat_cli.core.config.bench import BenchRequest

_SAMPLING = (
    "steps",
    "batch",
    "format",
    "images/s",
    "first s",
    "network",
    "process",
    "pixels",
    "writing",
    "GFLOP/image",
)
_WORK = ("work", "steps", "batch", "format", "images/s", "GFLOP/image", "GFLOP/s", "of product", "peak MB")


@options.takes(BenchRequest, options.Printing)
def command(request: BenchRequest, printing: options.Printing) -> None:
    """Measure sampling, tokenizing and training: speed, floating-point operations and memory.

    A multiply-add counts as 2. Speeds are compared with that of a matrix product, the fastest of those measured
    between the rows.
    """
    from adanat_cli.jobs.bench.bench import bench

    job.run(bench, request, printing, _lines)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    rates = ", ".join(f"{1e3 * rate:.4g} in {name}" for name, rate in values["product_tera_flops_per_second"].items())
    yield f"{values['model']}: {values['num_parameters'] / 1e6:.1f} M parameters of the NAT"
    before = _megabytes(values["bytes_before"])
    yield f"Peaks of memory are those of the process, which took {before} MB before the networks were loaded"
    threads = f"{values['num_threads']} thread{'s' * (values['num_threads'] > 1)}"
    yield f"{values['device']}, {threads}; GFLOP/s of a matrix product: {rates}"
    sampled = [row for row in values["rows"] if row["measured"] == "sample"]
    if sampled:
        yield from drawn((*_SAMPLING, "NAT GFLOP/s", "of product", "peak MB"), [_sampling(row) for row in sampled])
    for row in sampled:
        if "median_ratio" in row:
            pairs = f"{len(row['ratios'])} pair{'s' * (len(row['ratios']) > 1)}"
            yield (
                f"{row['num_steps']} steps, batch {row['batch_size']}, {_format(row)}: {row['median_ratio']:.2f} x the "
                f"plain loop ({row['plain_images_per_second']:.3g} images/s, "
                f"{1e3 * row['plain_tera_flops_per_image']:.4g} GFLOP/image), median of {pairs}"
            )
    if others := [row for row in values["rows"] if row["measured"] != "sample"]:
        yield from drawn(_WORK, [_work(row) for row in others])


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f}"


def _format(row: dict[str, Any]) -> str:
    return f"{row['precision']}{', compiled' if row.get('compiled') else ''}"


def _sampling(row: dict[str, Any]) -> list[str]:
    return [
        str(row["num_steps"]),
        str(row["batch_size"]),
        _format(row),
        f"{row['images_per_second']:.3g}",
        f"{row['seconds_to_first_image']:.3g}",
        *(f"{100 * share:.0f} %" for share in row["shares"].values()),
        f"{1e3 * row['tera_flops_per_image']:.4g}",
        f"{1e3 * row['tera_flops_per_second']:.4g}",
        f"{100 * row['share_of_product']:.0f} %",
        _megabytes(row["peak_bytes"]),
    ]


def _work(row: dict[str, Any]) -> list[str]:
    return [
        row["measured"],
        str(row.get("num_steps", "")),
        str(row["batch_size"]),
        _format(row),
        f"{row['images_per_second']:.3g}",
        f"{1e3 * row['tera_flops_per_image']:.4g}",
        f"{1e3 * row['tera_flops_per_second']:.4g}",
        f"{100 * row['share_of_product']:.0f} %" if "share_of_product" in row else "",
        _megabytes(row["peak_bytes"]),
    ]
