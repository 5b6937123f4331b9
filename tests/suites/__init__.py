"""Other projects' own tests, run against our sessions in place of theirs. Nothing of them is in
this repository.
"""
