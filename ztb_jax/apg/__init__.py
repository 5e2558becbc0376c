"""Analytic policy gradients: learning by the derivative of the environment itself."""
