"""Tools build what runs need: repair problems, mutants, corpora and embedded models."""
