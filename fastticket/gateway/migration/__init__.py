"""Sessions of another system go on here: `[[migration]]`.

    exchange   a request with the other system's cookie -> our session and its ticket
    continued  our session is made, or found: once, whoever asks
    held       the exchanged sessions that this gateway knows, and what names each at its old store
    rotations  which id of ours came after which, so that a rotated session is known again
    watch      one question a round: what has ended there ends here, what lives here is kept alive
               there, and what has ended here is ended there, again and again until it is done
    walks      all of a user's were ended here: so are those there that nobody has exchanged
    oldstores  the old stores, a class for each kind

    Answers (asks.py) ──► Exchange ──► OldStore.read ──► continued.take_up ──► the ticket
                              ├► Held ◄── Watch ──► OldStore.uses, keep, end
                              └► Walks ──► OldStore.begun, end

Rules of this folder
- What names a session at its old store is as good as a ticket there. It is in memory only, in no
  message, repr or log, and never in our store: a gateway learns it from the cookie that the browser
  still brings.
- An old store that does not answer is an outage: 503 for those whom nobody knows here, and nobody
  whose session was exchanged before notices.
- An end here is an end: the old cookie does not make the session again.
"""
