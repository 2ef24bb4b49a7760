"""What flows between the parts: specs that describe it, trajectories, replay. Import from the subpackages."""
