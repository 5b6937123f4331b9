"""The gateway as a black box: real processes, real servers, faults by a schedule, and a judge who
reads what clients saw.

Nothing here imports the inside of the product: sessions are made by logging in at a gateway, ended
by what an application answers, and looked up in Redis by the layout that docs/how-to/redis.md
gives.
"""
