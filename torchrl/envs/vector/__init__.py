"""From simulators to one batched Env: the worker that steps them, and the back ends that call it."""
