"""The folder `evaluate.load('harness/metrics/self_correction')` reads; the metric itself is in self_correction.py."""
