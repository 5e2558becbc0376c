"""Causal features of price bars: rolling statistics, indicators, scaling and the named recipes."""
