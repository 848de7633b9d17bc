"""What ``adanat info`` prints for people; ``--json`` has all of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from adanat_cli.commands.results import result_lines
from adanat_cli.commands.wording import UNBROKEN, line_width, lines_of

_INDENT = 12 * " "


def model_lines(values: dict[str, Any], full: bool = False) -> Iterator[str]:
    """Lay the values of ``info.describe`` out for people; ``full`` adds how the components were made."""
    yield f"Model       {values['model']}"
    if "fetch" in values:
        yield f"            {values['about']}"
        for part in values["parts"]:
            yield f"{part['component']}: {part['file']} from {part['from']}, license {part['license']}"
        yield f"Not here yet; fetch it with: {values['fetch']}"
        return
    yield f"Images      {values['image_size']} x {values['image_size']}"
    yield ""
    for name, part in values["components"].items():
        yield from textwrap.wrap(_component(name, part, values), line_width(), subsequent_indent=_INDENT)
    yield ""
    yield f"Policies    {', '.join(f'{steps} steps' for steps in values['policies']) or 'none'}"
    if values["condition"] != "text":
        yield from _classes(values["classes"])
    for pair, answer in values["matches"].items():
        yield f"Match       {pair}: {answer}"
    if not values["results"]:
        yield "Results     none measured"
    yield from result_lines(values["results"])
    for name, about in values.get("known", {}).items():
        yield from textwrap.wrap(f"Name        {name}: {about}", line_width(), subsequent_indent=_INDENT)
    if full:
        yield from _origins(values)
    elif values["provenance"]:
        yield "Training    add --full for the settings of each component, and for fingerprints"


def _component(name: str, part: dict[str, Any], values: dict[str, Any]) -> str:
    """A component's sizes in one line, with its license where that is recorded."""
    made = values["provenance"].get(name) or {}
    license_ = f", license {made['license']}" if isinstance(made, dict) and made.get("license") else ""
    sizes = f"{part['parameters']:,} parameters, {', '.join(part['formats'])}, {part['bytes'] / 1e6:.1f} MB"
    return f"{name}: {'; '.join(filter(None, (part['summary'], sizes)))}{license_}"


def _origins(values: dict[str, Any]) -> Iterator[str]:
    """Fingerprint of each component, and all that is recorded of how it was made."""
    for name, part in values["components"].items():
        yield ""
        yield f"{name}: fingerprint {part['fingerprint'][:16]}"
        yield from lines_of(values["provenance"].get(name) or {}, indent="  ")


def _classes(classes: dict[str, str]) -> Iterator[str]:
    """Number and names of the classes that the model has seen."""
    from adanat_cli.jobs.resolve.classes import short_name

    if not classes:
        yield "Classes     no names recorded"
        return
    # A name stays on one line, as it is typed.
    listed = ", ".join(f"{label} {short_name(name)}".replace(" ", UNBROKEN) for label, name in classes.items())
    text = f"Classes     {len(classes)}: {listed}"
    lines = textwrap.wrap(text, line_width(), subsequent_indent=_INDENT, break_on_hyphens=False)
    yield from (line.replace(UNBROKEN, " ") for line in lines)


def benchmark_lines(values: dict[str, Any]) -> Iterator[str]:
    """Lay the values of ``benchmarks.describe_benchmark`` out for people."""
    grid, counts = " x ".join(map(str, values["grid"])), values["parameters"]
    text = values["condition"] == "text"
    condition = f"text by {values['text_encoder']}" if text else f"{values['num_classes']} classes"
    yield f"Benchmark   {values['name']}: {values['image_size']} x {values['image_size']} pixels, {condition}"
    home = "--data-dir" if values["source"] == values["name"] else f"{values['source']} or --data-dir"
    yield f"Images      {values['num_images']:,} to train on, from {home}:"
    yield from textwrap.wrap(values["layout"], line_width(), initial_indent=_INDENT, subsequent_indent=_INDENT)
    yield "Transform   ADM's: halve by box means, one bicubic step to the short side, centre crop, half flipped"
    yield f"Tokenizer   VQGAN, {values['codebook_size']} codes, {grid} grid, {counts['tokenizer']:,} parameters"
    yield f"NAT         {values['nat_size']}, {counts['nat']:,} parameters, {values['nat_steps']:,} updates"
    if text:
        yield f"Context     {values['text_length']} states of width {values['text_width']}, no attention mask"
    steps, both = ", ".join(map(str, values["policy_steps"])), counts["nat"] + counts["policy"]
    yield f"Policy      {counts['policy']:,} parameters ({both:,} with the NAT), {steps} steps"
    yield f"Reward      {values['discriminator']} discriminator, conditioned on the {values['discriminator_condition']}"
    yield f"Measured    {values['eval_images']:,} images of {values['eval_condition']}, protocol {values['protocol']},"
    yield f"            against {values['reference']}"
