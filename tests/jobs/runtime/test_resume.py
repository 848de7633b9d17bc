"""A folder is resumed with the settings that it was begun with, and with no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.resume import Length, refuse_changes

SAVED = {
    "data": {"source": "a", "files_digest": "5a92", "source_images": 360},
    "training": {"steps": 6, "save_every": 2},
}
FOLDER = Path("out")


def changed(section: str, **values: Any) -> dict[str, Any]:
    return {**SAVED, section: {**SAVED[section], **values}}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (changed("data", source="b"), r"^out holds tokens with other settings: data\.source was 'a', now 'b'; repeat"),
        (
            changed("training", steps=7, save_every=1),
            r"training\.save_every was 2, now 1, training\.steps was 6, now 7",
        ),
        (changed("data", files_digest="11ff"), "^The images have changed since out was begun"),
        (changed("data", files_digest="11ff", source_images=359), "^The images have changed since out was begun"),
        (changed("data", source_images=359), r"data\.source_images was 360, now 359"),
        (changed("data", files_digest="11ff", source="b"), r"data\.source was 'a', now 'b'"),
        (changed("data", source="c0de" * 16), r"data\.source was 'a', now 'c0dec0dec0de'; repeat"),
        ({"data": SAVED["data"]}, r"training\.steps was 6, now None"),
    ],
)
def test_every_other_setting_is_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(AdaNATError, match=message):
        refuse_changes(SAVED, asked, FOLDER, "tokens")


def test_the_same_settings_resume_whatever_was_not_recorded_before() -> None:
    refuse_changes({**SAVED, "grid": [4, 4]}, {**SAVED, "grid": (4, 4), "new": 1}, FOLDER, "tokens")


@pytest.mark.parametrize(("steps", "fixed", "message"), [(5, "", "not shorter"), (7, "the rate is fixed", "is fixed")])
def test_a_training_may_only_become_longer(steps: int, fixed: str, message: str) -> None:
    longer = changed("training", steps=7, save_every=1)
    refuse_changes(SAVED, longer, FOLDER, "a run", Length("training.steps"))
    with pytest.raises(AdaNATError, match=message):
        refuse_changes(SAVED, changed("training", steps=steps), FOLDER, "a run", Length("training.steps", fixed))
