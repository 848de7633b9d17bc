"""Data without a preset: how many images there are, on which device, and what size they are cut to."""

from __future__ import annotations

from adanat_cli.core.config import DataConfig, data_config
from adanat_cli.core.config import own_data as usual
from adanat_cli.core.config.own_data import Fields, Scale
from adanat_cli.core.data.sources import open_source
from adanat_cli.jobs.resolve.images import look_at_own, shorter_side
from adanat_cli.jobs.runtime.devices import device_memory, pick_device


def scale_of(num_images: int | None, device_name: str) -> Scale:
    """The size of the data, and of the device."""
    device = pick_device(device_name)
    return Scale(num_images, device.type, device_memory(device))


def own_images(dataset: str, data: Fields, device: str, dry_run: bool) -> tuple[DataConfig, Scale, str]:
    """Count data without a preset and look at a few images; says what it takes them for.

    Args:
        dataset: what was typed as the data.
        data: settings of it that are given.
        device: name of the device; "" for the best one here.
        dry_run: whether data on other machines stay untouched.
    """
    config = data_config(dataset, **{"image_size": usual.LARGEST_IMAGE, **data})
    source = look_at_own(config) if dry_run else open_source(config)
    scale = scale_of(source.num_images if source else None, device)
    size = config.image_size
    if "image_size" in data:
        return config, scale, f"Images of {size} x {size} pixels,"
    side = shorter_side(source) if source else 0
    if side:
        size = usual.usual_image_size(side)
    known = f"of some {side} pixels " if side else ""
    line = f"Images {known}are cut to squares of {size} x {size} pixels (--image-size sets another size),"
    return config.replace(image_size=size), scale, line
