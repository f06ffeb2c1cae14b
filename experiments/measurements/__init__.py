"""The parts of experiments/benchmark.py: each function measures one thing."""
