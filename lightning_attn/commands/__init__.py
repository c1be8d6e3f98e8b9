"""What the command line is made of: running a Trainer, wording of errors, what a terminal shows."""
