"""Sessions on their way from one place to another: files, stores, other systems.

record      what a reader of any source yields: a session, or what it had to leave out
importing   what readers yield, into a store; counted, and continued where it was (journal)
dump        a file of sessions; exporting writes it, sealing encrypts it
derived     the id of a session that continues another system's
formats/    what other systems' tickets and cookies say
sources/    readers of other systems' sessions, and of oauth2-proxy's configuration
"""
