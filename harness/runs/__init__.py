"""The run folder: what its records are, the writer, and the reader."""
