"""Objects in processes of their own: how they start, how they are called, how they end. Knows no environment.

- ``children``: start a process, and end it without fail.
- ``channels``: whole messages over a socket, with a deadline; exceptions travel too.
- ``remote``: an object at the other end of a channel, with the calls it allows.
- ``shared_memory``, ``shared_tensors``: memory that both ends see, so that messages stay small.

Only ``shared_tensors`` imports torch: a process that steps simulators starts without it.
"""
