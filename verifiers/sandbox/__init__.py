"""How a model's programs are run: isolation, fork server, and what passes between the two processes."""
