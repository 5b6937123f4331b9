"""The id of a session that continues another system's: made of the old one's, so that everybody
who moves or exchanges the same old session makes the same new one.

It needs no secret: a session's id admits nobody (a ticket is signed), and the old id, of which it
is made, can not be computed from it. Where old ids can be guessed, as with Linkis' DES tickets, the
id says whether a guess is right; the old system's store says so, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

PURPOSE = b"fastticket/moved/1/"  # with the source: two systems that have one id have two sessions
ID_BYTES = 16


def derive_session_id(source: str, old_id: str) -> str:
    """The session's id, 22 characters base64url: the first 16 bytes of HMAC-SHA-256 over `old_id`
    in UTF-8, under the key "fastticket/moved/1/" and the source's name.

    `source`: linkis, spring, oauth2-proxy, flask-session, starsessions or django. `old_id`: what
    names the old session at its store: for Linkis the whole ticket without line breaks; the id
    of the others, decoded.
    """
    digest = hmac.digest(PURPOSE + source.encode(), old_id.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:ID_BYTES]).rstrip(b"=").decode()


def next_session_id(session_id: str) -> str:
    """The id after this one, of a session that begins again because its other system still has
    it: an id whose session was over never lives again.
    """
    return derive_session_id("again", session_id)
