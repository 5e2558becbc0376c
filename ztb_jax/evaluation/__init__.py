"""Judging a policy: metrics, the best attainable result, the verdict and the report page."""
