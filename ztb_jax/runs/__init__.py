"""Run directories: what a run leaves behind, and the loop that fills them."""
