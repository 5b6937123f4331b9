"""A key is made, rotated and retired under a gateway, as the page says."""

import shutil

from lab.pages import shown
from lab.snippets import blocks

PAGE = "how-to/keys.md"
FROM_ANOTHER = "--from first-keys.toml"


def test_every_command_prints_what_the_page_shows(tmp_path):
    with shown("how-to/keys.md", tmp_path, with_redis=False) as at:
        for language, _, text in blocks(PAGE):
            if language == "toml":
                continue
            assert language == "console"
            if "keygen" in text:
                at.run(text)
                shutil.copy(tmp_path / "keys.toml", tmp_path / "before.toml")
            elif FROM_ANOTHER in text:  # on another gateway, whose file is as this one's was before
                shutil.copy(tmp_path / "keys.toml", tmp_path / "first-keys.toml")
                shutil.copy(tmp_path / "before.toml", tmp_path / "keys.toml")
                at.run(text)
                assert (tmp_path / "keys.toml").read_text() == (tmp_path / "first-keys.toml").read_text()
            else:
                at.run(text)
