"""The tutorial, typed from its first line to its last."""

import re

from lab.pages import shown
from lab.snippets import blocks

#: Ports that a command has without naming them.
DEFAULTS = {"fastticket demo &": "fastticket demo --port 8080 --app-ports 9001,9002 &"}


def test_every_command_prints_what_the_page_shows(tmp_path):
    with shown("tutorial/index.md", tmp_path, with_redis=False) as at:
        for language, name, text in blocks("tutorial/index.md"):
            assert name or language == "console"
            if not name:
                # A gateway that did not end the session itself hears of it within its lease.
                text = re.sub(r"\$ (curl .*)\n(?=.*revoked)", r"$ until \1 | grep revoked; do :; done\n\g<0>", text)
                for said, meant in DEFAULTS.items():
                    text = text.replace(said, meant)
                at.run(text)
