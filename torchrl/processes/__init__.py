"""Start objects in processes of their own, call their methods by message, and end them. Knows no environment.

From the bottom up:

- ``children``: start a process, and end it without fail.
- ``channels``: whole messages over a socket, with a deadline; exceptions travel too.
- ``parcels``: the work that a process is given, as bytes and open files.
- ``remote`` and ``serving``: the two ends of a channel behind which an object lives, with the calls it allows.
- ``pool``: several such objects, started, called, replaced and closed together. Users start here.
- ``shared_memory``, ``shared_tensors``: memory that both ends see, so that messages stay small.

Only ``shared_tensors`` imports torch: a process that steps simulators starts without it.
"""
