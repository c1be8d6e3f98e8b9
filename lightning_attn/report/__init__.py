"""Pages and figures from runs and checkpoints."""
