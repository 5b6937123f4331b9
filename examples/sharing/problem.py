"""1. The problem: two applications, each with the sessions that it made, behind an nginx that uses
them in turns.

`/set-session?sessionVal=x` reaches one application. Every other `/get-session` reaches the other
application, which does not have the session.
"""

from __future__ import annotations

import table
from balancer import Balancer
from browser import Browser
from lab import Lab

READS = 100


def measure() -> list[table.Row]:
    with Lab() as lab:
        names = ["application 1", "application 2"]
        nginx = Balancer(lab, [lab.application("values.py", name) for name in names])
        browser = Browser(nginx.port)
        wrote = browser.ask("/set-session?sessionVal=x").application
        answers = [browser.ask("/get-session") for _ in range(READS)]
    return [
        {
            "application": name,
            "sessions written": int(wrote == name),
            "reads": sum(each.application == name for each in answers),
            "reads that found it": sum(each.application == name and each.text == "x" for each in answers),
        }
        for name in names
    ]


TITLE = "1. Two applications with sessions of their own, in turns"

if __name__ == "__main__":
    table.run(TITLE, measure)
